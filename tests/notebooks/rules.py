"""The rules that every chapter keeps: each is a function of the notebook and its chapter that returns complaints."""

import re
from collections.abc import Callable

from nbformat import NotebookNode

from course_lib.chapters import Chapter, samplers

BEATS = ["beat-question", "beat-small-numbers", "beat-build", "beat-see", "beat-claim", "beat-trap"]
PARTS = [*BEATS, "exercises", "takeaway", "appendix"]
LONG = {"08", "11", "17", "21"}
LIVE = re.compile(r"\bshow\.(live|pointer)\(")
NEEDS_KERNEL = re.compile(r"\bshow\.(live|pointer|upload)\(")
LEARNS = re.compile(r"\btraining\.train\(")
FORMULA = re.compile(r"\$\$.+?\$\$|\\begin\{(?:align|equation)\*?\}", re.DOTALL)
FORBIDDEN_OUTPUT = {
    "a path of one machine": re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|usr|opt|var)/|[A-Z]:\\\\?Users"),
    "a memory address": re.compile(r"\b0x[0-9a-fA-F]{6,}"),
    "a warning": re.compile(r"\b\w*Warning\b:|warnings\.warn"),
    "a progress bar": re.compile(r"\d+%\|.*\||\bit/s\b|\bs/it\b"),
}

Rule = Callable[[NotebookNode, Chapter], list[str]]
RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    """Register a rule under its function's name."""
    RULES[check.__name__] = check
    return check


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def slide_type(cell: NotebookNode) -> str:
    """What a cell is on the slides ("-": it continues the one before)."""
    return str(cell.metadata.get("slideshow", {}).get("slide_type", "-") or "-")


def code(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells."""
    return [c for c in nb.cells if c.cell_type == "code"]


def prose(nb: NotebookNode) -> str:
    """All Markdown of a notebook, without its fenced examples."""
    text = "\n\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    return re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)


def texts(output: NotebookNode) -> list[str]:
    """What an output says in words."""
    data = output.get("data", {})
    words = [str(v) for k, v in data.items() if k.startswith("text/")]
    return [re.sub(r"data:image/[a-z+]+;base64,[\w+/=]+", "", t) for t in [output.get("text", ""), *words]]


@rule
def has_one_title(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """One H1 in the whole chapter."""
    found = re.findall(r"^# .+$", prose(nb), re.MULTILINE)
    return [] if len(found) == 1 else [f"one H1 expected, got {found}"]


@rule
def has_six_beats(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """Each beat, exercises, takeaway and appendix once, in order."""
    found = [t for c in nb.cells for t in tags(c) if t in PARTS]
    return [] if found == PARTS else [f"the tags {PARTS} must appear once each, in this order; got {found}"]


@rule
def starts_with_header_and_guess(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """The header is made from metadata; the reader guesses before the second beat; the appendix is made too."""
    sources = [c.source for c in nb.cells]
    small = next((i for i, c in enumerate(nb.cells) if "beat-small-numbers" in tags(c)), len(sources))
    first, whole = "\n".join(sources[:small]), "\n".join(sources)
    complaints = []
    if f'show.chapter("{chapter.number}")' not in first:
        complaints.append(f'show.chapter("{chapter.number}") is missing before the second beat')
    if "show.guess(" not in first:
        complaints.append("show.guess(...) is missing before the second beat")
    if f'show.appendix("{chapter.number}")' not in whole:
        complaints.append(f'show.appendix("{chapter.number}") is missing')
    return complaints


@rule
def has_its_sampler_row(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """A chapter that adds a row to the table shows the table."""
    own = [s.name for s in samplers() if s.chapter == chapter.number]
    shown = any("show.sampler_table(" in c.source for c in code(nb))
    return [f"adds {own} to the sampler table but does not show it"] if own and not shown else []


@rule
def has_exercises(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """Three to five exercises with their check; each stub is tagged and is empty (NN.0 only shows how checks work)."""
    stubs = [c for c in code(nb) if "exercise" in tags(c)]
    checked = [i for c in code(nb) for i in re.findall(r'^check\("(\d\d\.[1-9]\d*)"', c.source, re.MULTILINE)]
    complaints = []
    if not 3 <= len(set(checked)) <= 5 or len(set(checked)) != len(checked):
        complaints.append(f'3 to 5 exercises expected, each with one check("{chapter.number}.n", ...); got {checked}')
    if wrong := [i for i in checked if not i.startswith(f"{chapter.number}.")]:
        complaints.append(f"exercises of another chapter: {wrong}")
    if len(stubs) != len(checked):
        complaints.append(f"{len(checked)} checks but {len(stubs)} cells tagged exercise")
    complaints += [f"a stub without ...: {c.source[:60]!r}" for c in stubs if "..." not in c.source]
    complaints += [
        f"a solution is shown: {c.source[:60]!r}"
        for c in code(nb)
        if re.search(r'^solution\("\d\d\.[1-9]', c.source, re.MULTILINE)
    ]
    return complaints


@rule
def has_five_lines_to_remember(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """The takeaway is a list of five lines."""
    cells = [c for c in nb.cells if "takeaway" in tags(c)]
    lines = [x for c in cells for x in re.findall(r"^(?:[-*]|\d+\.) ", c.source, re.MULTILINE)]
    return [] if len(lines) == 5 else [f"the takeaway must have five lines, got {len(lines)}"]


@rule
def has_interactions(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """At least one live interaction and one that needs no kernel; nbval does not compare live cells and trainings."""
    complaints = []
    if not any(LIVE.search(c.source) for c in code(nb)):
        complaints.append("no show.live(...) or show.pointer(...)")
    if not any("show.frames(" in c.source for c in code(nb)):
        complaints.append("no show.frames(...)")
    untagged = [c for c in code(nb) if NEEDS_KERNEL.search(c.source) and "nbval-ignore-output" not in tags(c)]
    complaints += [f"needs the tag nbval-ignore-output: {c.source[:60]!r}" for c in untagged]
    free = [c for c in code(nb) if NEEDS_KERNEL.search(c.source) or LEARNS.search(c.source)]
    quiet = [c for c in code(nb) if "nbval-ignore-output" in tags(c) and c not in free]
    complaints += [f"not compared by nbval without a reason: {c.source[:60]!r}" for c in quiet]
    return complaints


@rule
def has_short_cells(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """25 to 60 cells (90 where the plan allows) besides the speaker's notes, code cells of at most 25 lines."""
    most = 90 if chapter.number in LONG else 60
    count = sum(slide_type(c) != "notes" for c in nb.cells)
    complaints = [] if 25 <= count <= most else [f"{count} cells, expected 25 to {most}"]
    for c in code(nb):
        if (lines := len(c.source.splitlines())) > 25:
            complaints.append(f"a cell of {lines} lines: {c.source.splitlines()[0]!r}")
    return complaints


@rule
def asserts_its_formulas(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """Each displayed formula is followed by an assert within the next two code cells."""
    complaints = []
    for i, cell in enumerate(nb.cells):
        if cell.cell_type != "markdown" or not (found := FORMULA.search(cell.source)):
            continue
        following = [c for c in nb.cells[i + 1 :] if c.cell_type == "code"][:2]
        if not any(re.search(r"^\s*assert\b", c.source, re.MULTILINE) for c in following):
            complaints.append(f"no assert follows the formula {found[0][:70]!r}")
    return complaints


@rule
def has_a_lecture_of_slides(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """15 to 30 slides; the first cell on a slide starts one; the speaker has notes."""
    kinds = [slide_type(c) for c in nb.cells]
    count = kinds.count("slide") + kinds.count("subslide")
    complaints = [] if 15 <= count <= 30 else [f"{count} slides, expected 15 to 30"]
    if next((k for k in kinds if k not in ("skip", "notes")), "slide") != "slide":
        complaints.append("the first cell that is shown must be a slide")
    if "notes" not in kinds:
        complaints.append("no speaker's notes")
    unknown = set(kinds) - {"slide", "subslide", "fragment", "skip", "notes", "-"}
    return complaints + ([f"unknown slide types {sorted(unknown)}"] if unknown else [])


@rule
def was_run_in_order(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """Every code cell ran once, from the top, without an error or a word on stderr."""
    counts = [c.execution_count for c in code(nb)]
    complaints = [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts are {counts}"]
    for c in code(nb):
        for o in c.outputs:
            if o.output_type == "error":
                complaints.append(f"stored error {o.ename}: {o.evalue}")
            if o.get("name") == "stderr":
                complaints.append(f"stored stderr: {o.text[:80]!r}")
    return complaints


@rule
def stores_clean_outputs(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """No path, address, warning or progress bar in stored outputs; no widget state; little metadata."""
    complaints = []
    for c in code(nb):
        for text in (t for o in c.outputs for t in texts(o)):
            for what, pattern in FORBIDDEN_OUTPUT.items():
                if match := pattern.search(text):
                    complaints.append(f"{what} in the output of {c.source[:40]!r}: {match[0]!r}")
        kinds = {k for o in c.outputs for k in o.get("data", {})}
        complaints += [f"stored {k}" for k in kinds if "widget" in k]
    if set(nb.metadata) != {"kernelspec"}:
        complaints.append(f"metadata must hold kernelspec alone, got {sorted(nb.metadata)}")
    return complaints


@rule
def describes_its_pictures(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """Every stored picture came through `show` and says what it shows."""
    complaints = []
    for c in code(nb):
        if re.search(r"\bplt\.show\(|\bIPython\.display\b", c.source):
            complaints.append(f"shows a picture past course_lib.show: {c.source[:60]!r}")
        for o in c.outputs:
            data = o.get("data", {})
            if "image/png" in data and not o.metadata.get("image/png", {}).get("alt", "").strip():
                complaints.append(f"a picture without description: {c.source[:60]!r}")
            tagless = re.findall(r"<img(?![^>]*\balt=\"[^\"]+\")[^>]{0,80}", data.get("text/html", ""))
            complaints += [f"an <img> without description: {t[:60]!r}" for t in tagless]
    for c in nb.cells:
        if c.cell_type == "markdown" and re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=)", c.source):
            complaints.append(f"a picture without description: {c.source[:60]!r}")
    return complaints


@rule
def is_light(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """No cell stores more than 500 kB."""
    sizes = [
        (sum(len(str(v)) for o in c.outputs for v in [*o.get("data", {}).values(), o.get("text", "")]), c)
        for c in code(nb)
    ]
    return [f"{size / 1000:.0f} kB stored by {c.source[:60]!r}" for size, c in sizes if size > 500_000]


@rule
def runs_everywhere(nb: NotebookNode, chapter: Chapter) -> list[str]:
    """No machine's paths, no `.cuda()`, no trailing semicolon, no look at CI."""
    complaints = []
    for c in code(nb):
        for pattern in (r"\.cuda\(", r"\bos\.environ\b", r";\s*$", r"(?<![\w.])/(?:home|root|tmp|work|Users)/"):
            if match := re.search(pattern, c.source, re.MULTILINE):
                complaints.append(f"{match[0]!r} in {c.source[:60]!r}")
    return complaints
