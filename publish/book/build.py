"""Build the book as pages: build/book/index.html, to be read from a disk or served, without one remote request.

python -m publish.book.build [--out FOLDER]
"""

import argparse
import html
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from course_lib.chapters import PARTS, Chapter, all_chapters, all_terms
from publish.vendor import VendorMissing, vendor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
API = {
    "course_lib.upsampling": "Grids, kernels and resize; convolutions as matrices; pixel shuffle; DUpsampling.",
    "course_lib.plain": "The slow, readable forms: what one sees through, and what the tests compare with.",
    "course_lib.datasets": "Photographs, test pictures and the sets that are downloaded.",
    "course_lib.datasets.coins": "Coins on a photograph, with computed boxes.",
    "course_lib.colour": "Luminance and the two colour differences.",
    "course_lib.super_resolution.espcn": "Three convolutions and a shuffle.",
    "course_lib.super_resolution.luminance": "Colour pictures through a network for luminance.",
    "course_lib.super_resolution.edsr": "Residual blocks, one network for one whole scale.",
    "course_lib.super_resolution.rdn": "Dense blocks in the same place.",
    "course_lib.super_resolution.encoders": "The bodies of both, by name.",
    "course_lib.super_resolution.any_scale": "What networks for every scale share.",
    "course_lib.super_resolution.meta_sr": "Filters predicted for each place and scale.",
    "course_lib.super_resolution.meta_upscale": "Meta-SR's last layer, in three forms.",
    "course_lib.super_resolution.liif": "A picture as a function of place.",
    "course_lib.super_resolution.warping": "What a flow points at.",
    "course_lib.super_resolution.crossnet": "A reference aligned by optical flow.",
    "course_lib.super_resolution.srntt": "Patches swapped with a reference's, found by fixed features.",
    "course_lib.super_resolution.relevance": "Where a reference is most alike, and its textures there.",
    "course_lib.super_resolution.texture_extractor": "Textures at three sizes: queries, keys and values.",
    "course_lib.super_resolution.cross_scale": "Features of several sizes that exchange what they have.",
    "course_lib.super_resolution.ttsr": "A picture enlarged with a reference's textures.",
    "course_lib.super_resolution.texture_losses": "What TTSR is trained to make small.",
    "course_lib.super_resolution.discriminator": "A critic: how real a picture looks.",
    "course_lib.blocks.vgg": "VGG's convolutions, by the names of their layers.",
    "course_lib.super_resolution.second_order": "Covariances, their roots, and attention that reads them.",
    "course_lib.super_resolution.san": "Residual groups with second-order attention.",
    "course_lib.blocks.non_local": "Every place sees all others of its cell.",
    "course_lib.super_resolution.tiles": "Large pictures piece by piece.",
    "course_lib.super_resolution.metrics": "PSNR and SSIM with their protocols.",
    "course_lib.detection.boxes": "Boxes, and how much two of them share.",
    "course_lib.detection.anchors": "Where a detector looks.",
    "course_lib.detection.coding": "Boxes as offsets from anchors, and back.",
    "course_lib.detection.matching": "Which anchor is to find which box.",
    "course_lib.detection.augmentation": "Pictures made other than they are, and their boxes with them.",
    "course_lib.detection.light": "Colours in another light.",
    "course_lib.detection.losses": "What each anchor is to say, and how wrong it was.",
    "course_lib.detection.assignment": "Which query is to find which object, one to one.",
    "course_lib.detection.set_losses": "How wrong a set of predictions is, layer by layer.",
    "course_lib.detection.set_prediction": "What a set of predictions says; nothing is suppressed.",
    "course_lib.detection.nms": "Of boxes on one object the best stays.",
    "course_lib.detection.prediction": "From pictures to a detector's input, and from its output to boxes.",
    "course_lib.detection.metrics": "Average precision, by PASCAL VOC and by COCO.",
    "course_lib.detection.detectors": "What a detector is: one that suppresses, or one that answers with a set.",
    "course_lib.detection.coco_names": "What COCO calls its classes.",
    "course_lib.detection.finding": "What a detector finds in photographs, at which size, and the memory that takes.",
    "course_lib.detection.evaluation": "How well a detector does, and what it costs.",
    "course_lib.detection.families.ssd.ssd": "Body, neck, heads and anchors: SSD, and the frame of its family.",
    "course_lib.detection.families.ssd.vgg_body": "VGG-16 with smaller and smaller maps behind it.",
    "course_lib.detection.families.ssd.l2norm": "A map whose numbers get the length of the others.",
    "course_lib.detection.families.ssd.heads": "Scores and offsets at every place of every map.",
    "course_lib.detection.families.ssd.fssd": "Maps fused once, and a new pyramid made of them.",
    "course_lib.blocks.resnet": "ResNets of bottlenecks, and frozen norms.",
    "course_lib.detection.families.ssd.resnet_body": "A dilated ResNet with smaller maps behind it.",
    "course_lib.detection.families.ssd.dssd": "SSD with a way back up, and blocks before its heads.",
    "course_lib.detection.families.ssd.rssd": "SSD whose every map sees all others.",
    "course_lib.detection.families.ssd.dsod": "A body of dense blocks that learns from nothing.",
    "course_lib.detection.families.ssd.tiny": "The whole family in small, to be trained on a laptop.",
    "course_lib.detection.families.vidt.ram": "Swin's attention with tokens beside its windows that detect.",
    "course_lib.detection.families.vidt.body": "A Swin that carries [DET] tokens through all its stages.",
    "course_lib.detection.families.vidt.neck": "A deformable decoder that reads the body's maps as they are.",
    "course_lib.detection.families.vidt.vidt": "ViDT, with its neck and without.",
    "course_lib.detection.families.vidt.distillation": "A small ViDT learns to have the tokens of a large one.",
    "course_lib.blocks.attention": "Tokens that read each other, in one head and in several.",
    "course_lib.blocks.positions": "Where a cell of a map is, as a vector.",
    "course_lib.blocks.mlp": "A few linear layers: DETR's head for boxes.",
    "course_lib.blocks.transformer": "DETR's encoder and decoder.",
    "course_lib.detection.families.detr.bodies": "Which map of a network a detector reads.",
    "course_lib.detection.families.detr.detr": "Queries that ask a picture for its objects.",
    "course_lib.blocks.deformable_attention": "Queries that read a few points of several maps.",
    "course_lib.blocks.deformable_sampling": "Sums of bilinear samples, and their gradients, by rows of a table.",
    "course_lib.detection.families.detr.deformable_heads": "Projections of maps, and heads that begin at rest.",
    "course_lib.detection.families.detr.deformable_transformer": "Encoder and decoder whose attention samples maps.",
    "course_lib.detection.families.detr.two_stage": "Cells that propose boxes, the best of which become queries.",
    "course_lib.detection.families.detr.deformable": "DETR on several maps, with refinement and in two stages.",
    "course_lib.detection.families.detr.tiny": "The whole line in small, to be trained on a laptop.",
    "course_lib.blocks.windows": "Attention in windows: cutting, shifting, masks, biases, merging.",
    "course_lib.blocks.locality": "What windows save, and how far a token can look through them.",
    "course_lib.blocks.swin": "A pyramid of windows of attention, for pictures of any size.",
    "course_lib.blocks.patches": "Pictures as sequences, and positions for pictures of any size.",
    "course_lib.blocks.vit": "The vision transformer: patches that all read each other.",
    "course_lib.blocks.vit_costs": "What a vision transformer costs, by part and by pair.",
    "course_lib.detection.families.yolos.yolos": "A vision transformer with places for objects in its sequence.",
    "course_lib.detection.families.yolos.detr_vit": "DETR that reads the patches of a vision transformer.",
    "course_lib.detection.families.yolos.costs": "Where both spend their multiply-adds, by who reads whom.",
    "course_lib.blocks.stochastic_depth": "Branches that training leaves out for some pictures.",
    "course_lib.classification": "Small classifiers whose bodies detectors begin with.",
    "course_lib.segmentation": "A small segmentation network, its decoders and its measure.",
    "course_lib.checkpoints": "The trained networks that come with the book.",
    "course_lib.official": "Published checkpoints in our networks.",
    "course_lib.training": "One loop for every model.",
    "course_lib.show": "What the chapters show: figures, sliders, guesses.",
    "course_lib.exercises": "Checks, hints and solutions.",
    "course_lib.chapters": "The book's own tables.",
    "course_lib.measurements": "Recorded results.",
}
MADE_BY_US = ("index.html", "objects.inv", "_static/book.css")


class BookFailed(RuntimeError):
    """Sphinx found something to complain about, or the folder is not ours to replace; the message says what."""


def lay_out(source: Path) -> None:
    """Write the sources of the book into an empty folder: pages, notebooks, code and tests that the chapters name."""
    written = [c for c in all_chapters() if c.written]
    shared = vendor()
    shutil.copytree(shared / "mathjax", source / "_static" / "mathjax")
    shutil.copy(HERE / "book.css", source / "_static" / "book.css")
    shutil.copy(HERE / "conf.py", source / "conf.py")
    for chapter in written:
        target = source / "notebooks" / chapter.path
        target.parent.mkdir(parents=True, exist_ok=True)
        notebook = nbformat.read(ROOT / "notebooks" / chapter.path, 4)
        _keep_descriptions(notebook)
        notebook.cells = [c for c in notebook.cells if c.metadata.get("slideshow", {}).get("slide_type") != "notes"]
        notebook.cells.append(nbformat.v4.new_markdown_cell(_links(chapter), id="links"))
        nbformat.write(notebook, target)
    files = sorted({f for c in written for f in _files(c)})
    for file in files:
        (source / "files" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, source / "files" / file)
    pages = {
        "index.md": _index(written),
        "glossary.md": _glossary(written),
        "bibliography.md": _bibliography(written),
        "symbols.md": _symbols(),
        "code/index.md": _code_index(files),
        **{f"{_page(f)}.md": _listing(f) for f in files},
    }
    for name, text in pages.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _keep_descriptions(notebook: nbformat.NotebookNode) -> None:
    """Sphinx drops the descriptions of pictures in outputs; as HTML they stay."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt and "image/png" in output.data and "text/html" not in output.data:
                source = output.data.pop("image/png").replace("\n", "")
                picture = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{source}">'
                output.data["text/html"] = picture


def _files(chapter: Chapter) -> list[Path]:
    """The modules and tests that a chapter names, as files below the repository (folders: every file in them)."""
    found = []
    for module in chapter.modules:
        path = ROOT.joinpath(*module.split("."))
        found.append(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    for name in chapter.tests:
        path = ROOT / name
        found += sorted(path.glob("test_*.py")) if path.is_dir() else [path]
    return [f.relative_to(ROOT) for f in found]


def _page(file: Path) -> str:
    return f"code/{file.with_suffix('').as_posix().replace('/', '.')}"


def _links(chapter: Chapter) -> str:
    files = _files(chapter)
    code = [f for f in files if f.parts[0] != "tests"]
    tests = [f for f in files if f.parts[0] == "tests"]
    up = "../../"
    lines = [
        f"- {title}: " + ", ".join(f"[{f.as_posix()}]({up}{_page(f)}.md)" for f in group)
        for title, group in (("Modules", code), ("Tests", tests))
        if group
    ]
    return "## Where this chapter's code lives\n\n" + "\n".join(lines)


def _listing(file: Path) -> str:
    return (
        f"# `{file.as_posix()}`\n\n```{{literalinclude}} /files/{file.as_posix()}\n:language: python\n:linenos:\n```\n"
    )


def _code_index(files: list[Path]) -> str:
    pages = "\n".join(_page(f).removeprefix("code/") for f in files)
    return (
        "# Code and tests\n\nThe modules that the chapters name, and the tests that hold them to their word.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{pages}\n```\n"
    )


def _index(written: list[Chapter]) -> str:
    rows = ""
    for c in all_chapters():
        title = f"[{c.title}](notebooks/{c.path.as_posix()})" if c.written else c.title
        rows += f"| {c.number} | {title} | {c.question} | {c.hours:g} |{'' if c.written else ' to come'} |\n"
    trees = ""
    for part, title in PARTS.items():
        entries = "\n".join(f"notebooks/{c.path.with_suffix('').as_posix()}" for c in written if c.part == part)
        if entries:
            trees += f"```{{toctree}}\n:caption: {title}\n:hidden:\n:maxdepth: 1\n\n{entries}\n```\n\n"
    return (
        "# From bicubic to transformers\n\n"
        "Image upsampling, super-resolution and detection, derived from first principles. Every formula is followed by "
        "code that checks it, every claim by an experiment that can be run again.\n\n"
        f"| | chapter | question | hours | |\n|---|---|---|---|---|\n{rows}\n{trees}"
        "```{toctree}\n:caption: Look up\n:hidden:\n:maxdepth: 1\n\nglossary\nbibliography\nsymbols\ncode/index\n```\n"
    )


def _used_in(written: list[Chapter], uses) -> str:
    links = [f"[{c.number}](notebooks/{c.path.as_posix()})" for c in written if uses(c)]
    return f" (chapter {', '.join(links)})" if links else ""


def _glossary(written: list[Chapter]) -> str:
    text = "# Glossary\n\nEnglish, Chinese, and one line each.\n\n````{glossary}\n:sorted:\n\n"
    for t in all_terms():
        note = f" *Note:* {t.note}." if t.note else ""
        used = _used_in(written, lambda c, t=t: t.english in c.terms)
        text += f"{t.english}\n  **{t.chinese}** · {t.definition}{used}.{note}\n\n"
    return text + "````\n"


def _bibliography(written: list[Chapter]) -> str:
    text = "# Bibliography\n"
    found = {r.key: r for c in written for r in c.references}
    for key in sorted(found, key=lambda k: found[k].text):
        codes = dict.fromkeys(r.code for c in written for r in c.references if r.key == key and r.code)
        equations = dict.fromkeys(r.equations for c in written for r in c.references if r.key == key and r.equations)
        used = _used_in(written, lambda c, key=key: any(r.key == key for r in c.references))
        text += f"\n({key})=\n- {found[key].text}{used}."
        text += "".join(f" Equations: {e}." for e in equations) + "".join(f" Code: {c}." for c in codes) + "\n"
    return text


def _symbols() -> str:
    text = (
        "# Symbols\n\nEvery public name, with shapes, ranges and errors. The [index](genindex) lists them by letter.\n"
    )
    for module, about in API.items():
        package = ROOT.joinpath(*module.split(".")).is_dir()
        directive = f".. automodule:: {module}\n   :members:\n   :exclude-members: Scale\n"
        directive += "   :imported-members:\n" if package else ""
        text += f"\n## {module}\n\n{about}\n\n```{{eval-rst}}\n{directive}```\n"
    return text


def build(out: Path) -> Path:
    """Build the pages into `out`; return the index page. An older book there is replaced once the new one is whole.

    Raises BookFailed on any warning of Sphinx or when `out` holds something else, VendorMissing.
    """
    out = out.resolve()
    _check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # beside `out`: a rename works within one file system only
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".partial") as folder:
        source, made, older = (Path(folder, name) for name in ("source", "made", "older"))
        source.mkdir()
        lay_out(source)
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
        command += ["-d", str(Path(folder, "doctrees")), str(source), str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BookFailed(done.stderr.replace(f"{source}/", "").strip())
        _check_replaceable(out)
        if out.exists():
            out.rename(older)
        made.rename(out)
    return out / "index.html"


def _check_replaceable(out: Path) -> None:
    """Raise BookFailed unless `out` is not there, an empty folder, or a book that was built before."""
    if not out.exists():
        return
    if not out.is_dir():
        raise BookFailed(f"cannot build into {out}: it is not a folder")
    if any(out.iterdir()) and not all((out / name).is_file() for name in MADE_BY_US):
        raise BookFailed(f"cannot build into {out}: it holds files that are no book; name an empty or a new folder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book")
    try:
        print(build(parser.parse_args().out))
    except (VendorMissing, BookFailed) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
