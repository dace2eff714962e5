"""Files that must agree with each other. Oracle: the files they are derived from, read again here."""

import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from publish import readme
from publish.lock import ROOT

PINS = {
    canonicalize_name(name): version
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
    for name, version in [line.split("==")]
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RANGES = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
    if not line.startswith("course_lib")
]


def tracked() -> list[str]:
    """Every file that is part of the project: known to git, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return sorted(name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file())


@pytest.mark.parametrize("requirement", RANGES, ids=lambda r: r.name)
def test_the_lock_lies_within_the_ranges(requirement):
    """pyproject.toml's range holds the locked version, and everything it names is locked."""
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_torch_is_locked_exactly():
    """The version whose outputs are stored, without a build label, so that CPU and CUDA builds fit."""
    assert PINS["torch"] == "2.13.0"


def test_the_lock_is_plain():
    """Pins alone: no options, addresses or paths that belong to one machine."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    bare = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line for line in bare if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line)] == []
    assert len(bare) == len(PINS)


def test_conda_environment_agrees():
    """environment.yml installs the lock and the package, on a Python that the package allows."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python="))
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.txt", "-e ."]
    assert "pip" in environment["dependencies"]
    assert Version(python.split("=")[1]) in Requirement(f"x{PROJECT['requires-python']}").specifier


def test_run_time_needs_no_jupyterlab():
    """An engineer's install does not bring the book's tools."""
    names = {canonicalize_name(Requirement(d).name) for d in PROJECT["dependencies"]}
    assert not names & {"jupyterlab", "matplotlib", "ipywidgets", "sphinx", "pytest"}
    assert "torch" in names


def test_readme_table_is_current():
    """The chapter table in README.md is the one that chapters.toml gives (make readme)."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.renew(text) == text


def test_readme_picture_is_light():
    """A picture of a chapter, shown and under 200 kB."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (alt, path) = re.search(r"!\[([^\]]+)\]\(([^)]+)\)", text).groups()
    assert len(alt) > 20
    assert 10_000 < (ROOT / path).stat().st_size < 200_000


def test_readme_links_lead_somewhere():
    """Every relative link of README.md and CONTRIBUTING.md names a file of the project."""
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        links = [x for x in re.findall(r"\]\(([^)#]+)", text) if "://" not in x]
        assert [x for x in links if not (ROOT / x).exists()] == []


def test_licences():
    """Both licences are whole, and pyproject.toml ships them."""
    code, text = ((ROOT / n).read_text(encoding="utf-8") for n in ("LICENSE", "LICENSE-TEXT"))
    assert "Apache License" in code
    assert "END OF TERMS AND CONDITIONS" in code
    assert len(code) > 10_000
    assert "Creative Commons Attribution 4.0" in text
    assert "non-commercial" in text
    assert PROJECT["license-files"] == ["LICENSE", "LICENSE-TEXT"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["authors"] == [{"name": "The Course authors"}]


def test_derived_files_are_listed():
    """Each row of the table in CONTRIBUTING.md names a derived file, its source, and a make target that exists."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("## Derived files")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {row[0].strip().split("`")[1] for row in rows} >= {
        "notebooks/*/*.ipynb",
        "requirements.txt",
        "data/measurements/chapters.json",
        "README.md",
    }
    for row in rows:
        assert len(row) == 3
        for command in re.findall(r"make ([a-z-]+)", row[2]):
            assert command in targets


# written in pieces, so that this file does not contain what it looks for
FORBIDDEN = {
    "a call that binds code to one GPU": r"\.cuda" + r"\(\)",
    "a path of one machine": r"(?<![\w.])/(?:" + "root|home/[a-z]+|work/(?:main|shared)|tmp/w)" + "/",
    "a package registry's host": "registry"
    + r"\.npmjs|files\.python"
    + r"hosted|pypi\."
    + "org|download-"
    + "r2|conda"
    + r"\.anaconda",
    "a lock entry with an address": '"resolved"' + ": ",
}
MAY_SPEAK_OF_IT = {"tests/notebooks/rules.py", "tests/notebooks/test_rules.py"}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what):
    """Oracle: a search through every text file of the project."""
    pattern, found = re.compile(FORBIDDEN[what]), []
    for name in tracked():
        # a test marked gpu may well name the GPU
        if name in MAY_SPEAK_OF_IT or ("GPU" in what and name.startswith("tests/")):
            continue
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {m[0]}" for m in pattern.finditer(text)]
    assert found == []


def test_the_search_finds():
    """Each pattern finds an example of what it forbids, so the test above can fail."""
    cuda, path = "model" + ".cuda" + "()", "open('/" + "root/x')"
    examples = [cuda, path, "https://pypi" + ".org/simple", '"resolved"' + ': "https']
    for pattern, example in zip(FORBIDDEN.values(), examples, strict=True):
        assert re.search(pattern, example)


def test_text_files_are_tidy():
    """UTF-8, one newline at the end, no tabs in Python, no large file."""
    for name in tracked():
        path = ROOT / name
        assert path.stat().st_size < 3_000_000, name
        if path.suffix in {".py", ".md", ".toml", ".yml", ".css", ".js", ".cfg"}:
            text = path.read_text(encoding="utf-8")
            assert text == "" or (text.endswith("\n") and not text.endswith("\n\n")), f"{name} must end in one newline"
            assert "\r" not in text, name
