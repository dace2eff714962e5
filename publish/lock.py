"""Write requirements.txt: the exact version of everything that pyproject.toml and its extras need, as installed here.

python -m publish.lock          write it
python -m publish.lock --check  say whether it would change, write nothing
"""

import argparse
import importlib.metadata
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_lib.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# The full lock: with these versions the stored outputs of the notebooks are reproduced.
# Made by `python -m publish.lock` from the environment in use and the ranges in pyproject.toml; not edited by hand.
# Locked on Linux; torch brings the packages of its CUDA build itself, other systems add a few small ones.
"""
GROUPS = {
    "": "run time: course_lib alone needs these",
    "book": "the notebooks, slides and book",
    "test": "the tests",
    "dev": "linting and types",
}


def direct() -> dict[str, list[Requirement]]:
    """Return the requirements that pyproject.toml states, by group ("" = run time), without those on itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        group: [r for r in map(Requirement, lines) if canonicalize_name(r.name) != canonicalize_name(project["name"])]
        for group, lines in stated.items()
    }


def closure(roots: list[Requirement]) -> set[str]:
    """Return the canonical names of everything that `roots` need in this environment, themselves included."""
    found: set[tuple[str, str]] = set()
    queue = [(canonicalize_name(r.name), extra) for r in roots for extra in ("", *r.extras)]
    while queue:
        name, extra = queue.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for line in importlib.metadata.requires(name) or ():
            r = Requirement(line)
            if r.marker is None or r.marker.evaluate({"extra": extra}):
                queue += [(canonicalize_name(r.name), e) for e in ("", *r.extras)]
    return {name for name, _ in found}


def pin(name: str) -> str:
    """Return "name==version" as installed; a local label such as +cpu is left out, so that every build of it fits."""
    return f"{canonicalize_name(name)}=={importlib.metadata.version(name).split('+')[0]}"


def lock() -> str:
    """Return the text of requirements.txt."""
    groups = direct()
    text = HEAD
    for group, requirements in groups.items():
        text += f"\n# {GROUPS[group]}\n" + "".join(f"{pin(r.name)}\n" for r in requirements)
    stated = {canonicalize_name(r.name) for g in groups.values() for r in g}
    rest = sorted(closure([r for g in groups.values() for r in g]) - stated)
    return text + "\n# what those need in turn\n" + "".join(f"{pin(name)}\n" for name in rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if requirements.txt would change")
    path = ROOT / "requirements.txt"
    if parser.parse_args().check:
        if not path.exists() or path.read_text(encoding="utf-8") != lock():
            sys.exit("requirements.txt differs from this environment: run python -m publish.lock, or make clean")
        return
    with atomic_write(path, "w") as stream:
        stream.write(lock())


if __name__ == "__main__":
    main()
