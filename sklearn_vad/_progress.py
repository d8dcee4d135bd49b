"""Progress bars: widgets in notebooks, lines of text elsewhere."""

import warnings

with warnings.catch_warnings():
    # In a notebook without ipywidgets tqdm warns when it is imported. Its bars are
    # lines of text then, which is no reason to warn those who want no bar at all.
    warnings.filterwarnings("ignore", "IProgress not found")
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
