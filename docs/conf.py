"""
Settings of Sphinx. `make docs` builds the pages in ``build/docs``.
"""

from typing import Any

from sphinx.application import Sphinx

from exponea_async import __version__

project = "exponea_async"
author = "The exponea_async contributors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"exponea_async {release}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]

# Links to headings work here as they do on GitHub.
myst_heading_anchors = 3

# In docstrings, `Name` is a link to the object of this name, where the API page has it.
default_role = "py:obj"
# Signatures are short and complete: names without modules, one parameter per line where they are long.
add_module_names = False
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 140
toc_object_entries_show_parents = "hide"
# The standard label is "Variables".
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_numpy_docstring = False

#: Defaults whose representation says nothing.
DEFAULTS = {"<built-in function time>": "time.time", "NOTHING": "..."}


def plain_defaults(*event: Any) -> tuple[str, str] | None:
    """Replace the defaults of a signature that say nothing."""
    signature, returns = event[-2:]
    if signature is None:
        return None
    for default, plain in DEFAULTS.items():
        signature = signature.replace(default, plain)
    return signature, returns


def setup(app: Sphinx) -> None:
    """Connect the functions above; called by Sphinx."""
    app.connect("autodoc-process-signature", plain_defaults)
