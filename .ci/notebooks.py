"""Make a notebook of each script of the gallery, without outputs.

    python .ci/notebooks.py        # or: make notebooks

The converter is the gallery's own, so that the notebooks which the site offers for
download are the same. `tests/test_notebooks.py` compares and runs them.
"""

import copy
import json
from pathlib import Path

from sphinx_gallery import gen_gallery
from sphinx_gallery.notebook import jupyter_notebook
from sphinx_gallery.py_source_parser import split_code_and_text_blocks

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = EXAMPLES / "notebooks"


def notebook_of(script):
    """Return the text of a script's notebook."""
    _, blocks = split_code_and_text_blocks(str(script))
    settings = copy.deepcopy(gen_gallery.DEFAULT_GALLERY_CONF)
    notebook = jupyter_notebook(blocks, settings, str(EXAMPLES))
    notebook["metadata"]["language_info"].pop("version", None)  # of this Python
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main():
    """Write them all, and remove those whose script is gone."""
    NOTEBOOKS.mkdir(exist_ok=True)
    texts = {f"{s.stem}.ipynb": notebook_of(s) for s in EXAMPLES.glob("plot_*.py")}
    for path in NOTEBOOKS.glob("*.ipynb"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (NOTEBOOKS / name).write_text(text, encoding="utf-8")
    print(f"{len(texts)} notebooks in {NOTEBOOKS}")


if __name__ == "__main__":
    main()
