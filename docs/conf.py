"""How the manual is built: ``nox -s docs``. Nothing is fetched."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from gallery_order import ORDER

import anyfold

project = "anyfold"
author = "The anyfold developers"
copyright = author
version = release = anyfold.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "link_to_settings",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
exclude_patterns = ["_build", "_ext", "_templates"]
templates_path = ["_templates"]
default_role = "py:obj"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings have the types
autodoc_default_options = {"member-order": "bysource"}
numpydoc_show_class_members = False  # the pages of classes show all of them in full

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",  # all of them are run
    "within_subsection_order": "gallery_order.by_story",
    "abort_on_example_error": True,
    "capture_repr": ("_repr_html_", "__repr__"),
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "reset_modules": ("gallery_order.only_these_settings", "matplotlib"),
    "write_computation_times": False,  # that page would fetch scripts from elsewhere
    "default_thumb_file": str(Path(__file__).parent / "architecture.svg"),
    "reset_argv": "gallery_order.arguments",
}

html_theme = "pydata_sphinx_theme"
html_title = "anyfold"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "anyfold"},
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": {
        "**": ["page-toc"],
        "index": [],
        **{f"gallery/{example}": [] for example in ORDER},  # code needs the width
    },
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": False,
}
html_sidebars = {"index": [], "getting_started": [], "changelog": []}
