"""Make each chapter's .ipynb from its .md: run it from the top and store outputs that are the same bytes every time.

python -m publish.execute            every written chapter
python -m publish.execute 03 04      these chapters (or paths of .md files)
python -m publish.execute --measure  time them and record seconds and peak memory; no notebook is written
"""

import argparse
import concurrent.futures
import dataclasses
import hashlib
import math
import os
import re
import sys
import time
from pathlib import Path

import jupytext
import nbclient
import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm

from course_lib import measurements
from course_lib.chapters import all_chapters
from course_lib.files import atomic_write

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_SECONDS = 120
# one thread: sums are then taken in one order, and two chapters share two cores
ENVIRONMENT = {
    "COURSE_PICTURE": "default",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "PYTHONHASHSEED": "0",
}
PEAK_MEMORY = """
import resource, sys
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform != "darwin" else 1024**2))
"""


class ChapterFailed(RuntimeError):
    """A cell of a chapter ended in an error; the message names chapter and cell."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What one run of a chapter took, and whether its file is now different."""

    stem: str
    seconds: float
    megabytes: int
    changed: bool


def notebook_from_text(path: Path) -> nbformat.NotebookNode:
    """Return the notebook that a .md describes, without outputs; a cell's id depends on its kind and content alone."""
    notebook = jupytext.read(path, fmt={"extension": ".md", "format_name": "myst"})
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell.metadata.pop("execution", None)
        if "hide-input" in cell.metadata.get("tags", ()):
            # JupyterLab does not know the tag; unfolded, the code of a guess would show its answer
            cell.metadata["jupyter"] = {"source_hidden": True}
    # no pairing in the .ipynb: JupyterLab would refuse to open it whenever its file times differ from the .md's
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def clean(notebook: nbformat.NotebookNode) -> None:
    """Drop what differs between two runs: widget models, timing, language details of the kernel."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(WIDGET_VIEW, None)


def execute(path: Path, bar: tqdm) -> tuple[nbformat.NotebookNode, float, int]:
    """Run one .md in a fresh kernel; return the notebook with outputs, the seconds and the peak memory in MB."""
    notebook = notebook_from_text(path)
    started = time.perf_counter()
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_executed=lambda **_: bar.update(),
    )
    with client.setup_kernel():
        index = 0
        try:
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise ChapterFailed(_where(path, notebook, index, error)) from None
        seconds = time.perf_counter() - started
        probe = nbformat.v4.new_code_cell(PEAK_MEMORY)
        notebook.cells.append(probe)
        client.execute_cell(probe, len(notebook.cells) - 1, store_history=False)
        notebook.cells.pop()
        client.set_widgets_metadata()
    clean(notebook)
    return notebook, seconds, int(probe.outputs[0].text)


def _where(path: Path, notebook: nbformat.NotebookNode, index: int, error: Exception) -> str:
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    nth = f"code cell {code.index(index) + 1} of {len(code)}"
    heading = "the top"
    for cell in notebook.cells[: index + 1]:
        if cell.cell_type == "markdown" and (found := re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)):
            heading = found[-1]
    what = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error).splitlines()[0]
    source = "\n".join(f"    {line}" for line in notebook.cells[index].source.splitlines())
    return f'chapter {path.stem}, {nth}, below "{heading}": {what}\n{source}'


def make(path: Path, bar: tqdm) -> Result:
    """Run one .md and write its .ipynb; the old file stays untouched when a cell fails or nothing changed."""
    notebook, seconds, megabytes = execute(path, bar)
    nbformat.validate(notebook)
    new = (nbformat.writes(notebook, indent=1) + "\n").encode()
    target = path.with_suffix(".ipynb")
    changed = not target.exists() or target.read_bytes() != new
    if changed:
        with atomic_write(target) as stream:
            stream.write(new)
    return Result(path.stem, seconds, megabytes, changed)


def measure(path: Path, bar: tqdm) -> Result:
    """Run one .md and only take its time and memory."""
    _, seconds, megabytes = execute(path, bar)
    return Result(path.stem, seconds, megabytes, changed=False)


def record(results: list[Result]) -> None:
    """Put times (rounded up to 5 s) and memory (rounded up to 50 MB) into data/measurements/chapters.json."""
    try:
        values = dict(measurements.read("chapters")["values"])
    except measurements.MeasurementMissing:
        values = {}
    for r in results:
        values[r.stem[:2]] = {
            "run_seconds": 5 * math.ceil(r.seconds / 5),
            "peak_memory_mb": 50 * math.ceil(r.megabytes / 50),
        }
    measurements.write(
        "chapters",
        values,
        command="python -m publish.execute --measure",
        protocol="each chapter alone, top to bottom in a fresh kernel, one thread; seconds with the kernel's start, "
        "rounded up to 5; peak resident memory of the kernel, rounded up to 50 MB",
        data="the default picture",
    )


def find(names: list[str]) -> list[Path]:
    """Return the .md files of the named chapters (number or path), all written chapters for none."""
    written = {c.number: NOTEBOOKS / c.path.with_suffix(".md") for c in all_chapters() if c.written}
    paths = [written.get(name, Path(name).with_suffix(".md")) for name in names] or list(written.values())
    if missing := [str(p) for p in paths if not p.is_file()]:
        sys.exit(f"no such chapter: {', '.join(missing)} (numbers {', '.join(written)} or paths of .md files)")
    return [p.resolve() for p in paths]


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="numbers such as 03, or paths of .md files; all if left out")
    parser.add_argument("--measure", action="store_true", help="record seconds and peak memory, write no notebook")
    parser.add_argument(
        "--jobs", type=_at_least_one, default=2, help="chapters run at the same time (default 2; measuring: 1)"
    )
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    paths = find(arguments.chapters)
    work = measure if arguments.measure else make
    total = sum(c.cell_type == "code" for p in paths for c in notebook_from_text(p).cells) + len(paths)
    results, failures = [], []
    jobs = 1 if arguments.measure else arguments.jobs
    with tqdm(total=total, unit="cell") as bar, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for task in concurrent.futures.as_completed([pool.submit(work, p, bar) for p in paths]):
            try:
                r = task.result()
            except ChapterFailed as error:
                failures.append(str(error))
                continue
            results.append(r)
            state = "changed" if r.changed else "same"
            tqdm.write(
                f"{r.stem:24} {r.seconds:6.1f} s {r.megabytes:6d} MB" + ("" if arguments.measure else f"  {state}")
            )
    if arguments.measure and results:
        record(results)
    if failures:
        sys.exit("\n" + "\n\n".join(failures) + "\nThe files of these chapters were left as they were.")


if __name__ == "__main__":
    main()
