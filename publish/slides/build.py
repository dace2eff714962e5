"""Build one deck for each written chapter: build/slides/NN_name.html, to be opened from a disk or a USB stick.

python -m publish.slides.build [NOTEBOOK ...] [--out FOLDER]
"""

import argparse
import html
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert.exporters import SlidesExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from course_lib.chapters import all_chapters
from course_lib.files import atomic_write
from publish.vendor import VendorMissing, vendor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOT_SHOWN = ["solution", "remove-cell"]


def deck(notebook: nbformat.NotebookNode) -> str:
    """Return the HTML page of a deck: the cells that the slideshow metadata choose, inputs hidden where tagged."""
    config = Config()
    config.TemplateExporter.extra_template_basedirs = [str(HERE.parent)]
    config.TemplateExporter.exclude_input_prompt = True
    config.TemplateExporter.exclude_output_prompt = True
    remove = TagRemovePreprocessor(remove_input_tags=["hide-input"], remove_cell_tags=NOT_SHOWN, enabled=True)
    exporter = SlidesExporter(config=config, template_name="slides")
    exporter.register_preprocessor(remove, enabled=True)
    notebook.metadata["title"] = title(notebook)
    page, _ = exporter.from_notebook_node(notebook)
    # a link to another chapter leads to its deck, which lies in the same folder
    return re.sub(r'href="(?:[^":]*/)?(\d\d_\w+)\.ipynb', r'href="\1.html', str(page))


def title(notebook: nbformat.NotebookNode) -> str:
    """Return the first heading of a notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
            return str(found[1])
    return "Slides"


class NotANotebook(ValueError):
    """A path does not lead to a notebook; the message says which and why."""


def _read(path: Path) -> nbformat.NotebookNode:
    try:
        return nbformat.read(path, 4)
    except OSError as error:
        raise NotANotebook(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
        raise NotANotebook(f"cannot read {path}: it is not a notebook (.ipynb)") from error


def build(notebooks: list[Path], out: Path) -> list[Path]:
    """Write a deck for each notebook, the scripts they share and an index; return the decks' paths.

    Other files in `out` stay as they are. Raises NotANotebook before anything is written, VendorMissing.
    """
    read = [_read(path) for path in notebooks]
    source = vendor()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("reveal.js", "mathjax"):
        shutil.copytree(source / name, out / "vendor" / name, dirs_exist_ok=True)
    shutil.copy(HERE / "deck.js", out / "vendor" / "deck.js")
    style = (HERE / "theme.css").read_text(encoding="utf-8")
    colours = HtmlFormatter(style="xcode").get_style_defs(".reveal .highlight")
    _write(out / "vendor" / "theme.css", f"{style}\n{colours}\n")
    decks, titles = [], []
    for path, notebook in zip(notebooks, read, strict=True):
        titles.append(title(notebook))
        decks.append(out / f"{path.stem}.html")
        _write(decks[-1], deck(notebook))
        print(f"{decks[-1]}  ({decks[-1].stat().st_size / 1e6:.1f} MB)")
    items = "".join(f'<li><a href="{d.name}">{html.escape(t)}</a></li>' for d, t in zip(decks, titles, strict=True))
    _write(
        out / "index.html",
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Slides</title>'
        '<body style="font:20px/1.6 sans-serif;max-width:40em;margin:3em auto"><h1>Slides</h1>'
        f"<ul>{items}</ul><p>Arrow keys turn the slides; S opens the speaker's notes.</p></body></html>\n",
    )
    return decks


def _write(path: Path, text: str) -> None:
    with atomic_write(path, "w") as stream:
        stream.write(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="executed notebooks (default: every written chapter)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "slides")
    arguments = parser.parse_args()
    chapters = [ROOT / "notebooks" / c.path for c in all_chapters() if c.written]
    try:
        build(arguments.notebooks or chapters, arguments.out)
    except (VendorMissing, NotANotebook) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
