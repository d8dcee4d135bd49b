"""A finished report in the built site, made by the gallery's script about it."""

import runpy
import shutil
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "plot_report.py"


def make_report(app, exception):
    """Run the script, and put its report beside the pages."""
    if exception is None and app.builder.format == "html":
        path = runpy.run_path(str(SCRIPT))["path"]
        shutil.copyfile(path, Path(app.outdir) / "example_report.html")
        shutil.rmtree(path.parent)


def setup(app):
    """Make it when all pages are there."""
    app.connect("build-finished", make_report)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
