"""Settings of the documentation site; `make docs` builds it.

Nothing is fetched: no fonts, no scripts, no inventories of other projects. The site
can be read from a folder, without a network.
"""

import sys
from pathlib import Path

import sklearn_vad

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "sklearn_vad"
author = "The sklearn_vad contributors"
project_copyright = f"2026, {author}"
version = release = sklearn_vad.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "mathml",  # these three are ours, in _ext
    "public_names",
    "example_report",
]
templates_path = ["_templates"]
exclude_patterns = [
    "_build",
    "_ext",
    "auto_examples/*.ipynb",
    "**sg_execution_times.rst",
]
language = "en"
nitpicky = True
# Types of other packages: their sites are not asked.
nitpick_ignore_regex = [(r"py:.*", r"(sklearn|numpy|torch|skorch|matplotlib)\..*")]
suppress_warnings = ["config.cache"]  # the gallery's settings can't be pickled

# --------------------------------------------------------------------------
# Pages
# --------------------------------------------------------------------------
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

# --------------------------------------------------------------------------
# Reference
# --------------------------------------------------------------------------
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False  # the template lists them
numpydoc_class_members_toctree = False

# --------------------------------------------------------------------------
# Gallery
# --------------------------------------------------------------------------
sphinx_gallery_conf = {
    "examples_dirs": [str(HERE.parent / "examples")],
    "gallery_dirs": ["auto_examples"],
    "ignore_pattern": r"(demo|features_to_grid_search|videos_to_scores)\.py|notebooks",
    "within_subsection_order": "gallery_order.Order",
    "abort_on_example_error": False,
    "only_warn_on_example_error": True,  # an error of the build, by -W
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sklearn_vad",),
    "image_srcset": ["2x"],
    "min_reported_time": 20,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "remove_config_comments": True,
}

# --------------------------------------------------------------------------
# Looks
# --------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "sklearn_vad"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {
    "index": [],
    "install": [],
    "tutorial": [],
    "glossary": [],
    "programs": [],
    "changelog": [],
    "contributing": [],
}
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
