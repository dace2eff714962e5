"""Sphinx settings of the book. publish/book/build.py lays out the sources and starts Sphinx with this file."""

import re

project = "From bicubic to transformers"
author = "The Course authors"
copyright = "The Course authors; text and figures CC BY 4.0, code Apache-2.0"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
add_module_names = False

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # summaries are fetched, which browsers refuse for files on a disk
html_context = {"default_mode": "light"}
mathjax_path = "mathjax/es5/tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}}
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}

_CODE = re.compile(r"(:[a-z:]+:)?(``.+?``|`[^`]+`)")


def _plain(text: str) -> str:
    """Words of a docstring as reStructuredText that cannot be misread (|x|, *args, name_); `code` stays code."""
    done, last = [], 0
    for match in _CODE.finditer(text):
        done += [re.sub(r"([\\*|_`])", r"\\\1", text[last : match.start()]), f"``{match[2].strip('`')}``"]
        last = match.end()
    return "".join([*done, re.sub(r"([\\*|_`])", r"\\\1", text[last:])])


def docstring(app, what, name, obj, options, lines) -> None:
    """Docstrings are prose with indented examples: the prose is escaped, what is indented is kept as it stands."""
    out, literal = [], False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not literal:
            out += ["", "::", ""]
        elif not indented and literal and line.strip():
            out += [""]
        literal = indented or (literal and not line.strip())
        out.append(line if literal else _plain(line))
    lines[:] = out


def setup(app) -> None:
    app.connect("autodoc-process-docstring", docstring)
