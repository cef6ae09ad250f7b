"""
Settings of Sphinx. `make docs` builds the pages in ``build/docs``.
"""

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
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 100
# Sections "Attributes:" describe fields; with this they are a list, and not second entries beside the properties.
napoleon_use_ivar = True
napoleon_numpy_docstring = False
