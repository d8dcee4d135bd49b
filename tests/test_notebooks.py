"""The notebooks are those of the gallery's scripts, and run from top to bottom."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("plot_*.py"))
NOTEBOOKS = ROOT / "examples" / "notebooks"

nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

# Each forgets the names that the one before has left; torch stays imported. (`%reset`
# collects garbage, for which 15 times takes 6 s.) Pictures are drawn once, and small: a
# tight box would draw them twice.
FRESH = """%reset_selective -f .
%config InlineBackend.print_figure_kwargs = {"bbox_inches": None, "dpi": 40}"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One kernel for all notebooks: to start one takes longer than to run one."""
    folder = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("MPLBACKEND", raising=False)  # pictures go into the notebook
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv(
            "PYTHONWARNINGS", "ignore"
        )  # of the tools; ours are in other tests
        patch.setenv("IPYTHONDIR", str(folder))
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        client = nbclient.NotebookClient(
            nbformat.v4.new_notebook(),
            timeout=120,
            resources={},
            shutdown_kernel="immediate",
        )
        client.create_kernel_manager()
        client.start_new_kernel(cwd=str(folder))
        client.start_new_kernel_client()
        yield client
        client._cleanup_kernel()


def converter():
    pytest.importorskip("sphinx_gallery")
    path = ROOT / ".ci" / "notebooks.py"
    spec = importlib.util.spec_from_file_location("notebooks_of_ci", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_script_has_its_notebook():
    names = [path.stem for path in SCRIPTS]
    assert sorted(path.stem for path in NOTEBOOKS.glob("*")) == names
    assert len(names) >= 8


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_is_made_of_the_script(script):
    found = (NOTEBOOKS / f"{script.stem}.ipynb").read_text(encoding="utf-8")
    assert found == converter().notebook_of(script), "make notebooks"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_runs(kernel, script):
    notebook = nbformat.read(NOTEBOOKS / f"{script.stem}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    kernel.nb = notebook
    kernel.reset_execution_trackers()
    reset = nbformat.v4.new_code_cell(FRESH)
    notebook.cells.insert(0, reset)
    for index, cell in enumerate(notebook.cells):
        kernel.execute_cell(cell, index)  # raises what the cell raises
    shown = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
