"""Fetch the two scripts that slides and book need (reveal.js, MathJax) through npm, once, and check them by hash."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from course_lib.files import atomic_write

VENDOR = Path(__file__).resolve().parent / "vendor"


class VendorMissing(RuntimeError):
    """npm is not there, is offline, or delivered other bytes than expected."""


@dataclass(frozen=True)
class Package:
    """A package at one version: the hash of its archive as npm states it, and the files that are kept."""

    name: str
    version: str
    sha512: str
    files: tuple[str, ...]


_FONTS = "dist/theme/fonts/source-sans-pro"
PACKAGES = (
    Package(
        "reveal.js",
        "4.6.1",
        "1CW0auaXNPmwmvQ7TwpszwVxMi2Xr5cTS3J3EBC/HHgbPF32Dn7aiu/LKWDOGjMbaDwKQiGmfqcoGQ74HUHCMw==",
        (
            "LICENSE",
            "dist/reset.css",
            "dist/reveal.css",
            "dist/reveal.js",
            "dist/theme/white.css",
            "plugin/notes/notes.js",
            f"{_FONTS}/LICENSE",
            f"{_FONTS}/source-sans-pro.css",
            f"{_FONTS}/source-sans-pro-regular.woff",
            f"{_FONTS}/source-sans-pro-italic.woff",
            f"{_FONTS}/source-sans-pro-semibold.woff",
            f"{_FONTS}/source-sans-pro-semibolditalic.woff",
        ),
    ),
    Package(
        "mathjax",
        "3.2.2",
        "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        ("LICENSE", "es5/tex-svg-full.js"),
    ),
)


def vendor(folder: Path = VENDOR) -> Path:
    """Return the folder with reveal.js/ and mathjax/, filling it on the first call. Raises VendorMissing."""
    for package in PACKAGES:
        target = folder / package.name
        stamp = target / "VERSION"
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != package.version:
            shutil.rmtree(target, ignore_errors=True)
            _unpack(package, _archive(package), target)
            with atomic_write(stamp, "w") as stream:
                stream.write(package.version)
    return folder


def _archive(package: Package) -> bytes:
    npm = shutil.which("npm")
    if npm is None:
        raise VendorMissing(
            f"slides and book need {package.name} {package.version}, which is fetched with npm once: "
            "install Node.js (it brings npm) and run this again"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{package.name}@{package.version}", "--json", "--silent"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[0]
            raise VendorMissing(f"npm could not fetch {package.name} {package.version} (needed once): {reason}")
        archive = Path(folder, json.loads(done.stdout)[0]["filename"]).read_bytes()
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if digest != package.sha512:
        raise VendorMissing(
            f"{package.name} {package.version} has sha512 {digest}, expected {package.sha512}: not used"
        )
    return archive


def _unpack(package: Package, archive: bytes, target: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for name in package.files:
            member = tar.extractfile(f"package/{name}")
            if member is None:
                raise VendorMissing(f"{package.name} {package.version} has no file {name}")
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as stream:
                stream.write(member.read())
