"""`course upscale`: what it keeps, and that strips are the whole picture."""

import contextlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner

from course_lib import datasets
from course_lib.cli import app, strips, writers
from course_lib.datasets import Samples
from course_lib.upsampling import output_size, resize

COURSE = [sys.executable, "-c", "from course_lib.cli import app; app()"]
Array = npt.NDArray[Any]


def course(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def noise(height: int, width: int, channels: int, dtype: Any = np.uint8) -> Array:
    top = int(np.iinfo(dtype).max)
    return np.random.default_rng(0).integers(0, top + 1, (height, width, channels)).astype(dtype)


def whole(values: Array, **options: Any) -> Array:
    """Resize the whole picture at once in float64, colours weighted by alpha, and round half up."""
    top = np.iinfo(values.dtype).max
    planes = torch.from_numpy(np.moveaxis(values, 2, 0).astype(np.float64))
    if values.shape[2] in (2, 4):
        planes = torch.cat([planes[:-1] * (planes[-1:] / top), planes[-1:]])
        out = resize(planes, **options)
        out[:-1] = torch.where(out[-1:] < 0.5, 0, out[:-1] / out[-1:].clamp(min=0.5) * top)
    else:
        out = resize(planes, **options)
    return (out + 0.5).clamp(0, top).floor().permute(1, 2, 0).numpy().astype(values.dtype)


# --- strips ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [Fraction(37, 10), Fraction(2), Fraction(13, 29), Fraction(1, 7), Fraction(1)])
@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_strips_are_the_whole_picture_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, scale: Fraction, method: Any, rows: int
) -> None:
    """Oracle: `resize` of the whole picture in float64, rounded; strips of one row, of five, and one strip."""
    values = noise(43, 31, 3)
    size = (output_size(43, scale), output_size(31, scale))
    made = strips.Strips(Samples(values), size, scale, method)
    made.chunk = rows
    came = list(made)
    assert len(came) == -(-size[0] // rows)
    assert np.array_equal(np.concatenate(came), whole(values, scale=scale, method=method))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("antialias", [True, False])
def test_strips_of_every_kind_of_picture(channels: int, dtype: Any, antialias: bool) -> None:
    """Oracle: as above, with alpha, grey, 16 bits, and an enlargement one way and a reduction the other."""
    values = noise(23, 40, channels, dtype)
    made = strips.Strips(Samples(values), (50, 17), None, "bicubic", antialias)
    made.chunk = 7
    assert np.array_equal(np.concatenate(list(made)), whole(values, size=(50, 17), antialias=antialias))


def test_what_is_invisible_does_not_bleed() -> None:
    """Oracle: a red disc on invisible green stays red wherever it is seen at all; its alpha is that of `resize`."""
    values = np.zeros((12, 12, 4), np.uint8)
    values[..., 1] = 255
    values[4:8, 4:8] = (255, 0, 0, 255)
    out = np.concatenate(list(strips.Strips(Samples(values), (45, 45), None, "bilinear")))
    seen = out[..., 3] > 0
    assert 0 < seen.sum() < seen.size
    assert (out[seen][:, 0] >= 254).all()
    assert (out[seen][:, 1] == 0).all()
    alpha = resize(torch.from_numpy(values[..., 3].astype(np.float64))[None], size=(45, 45), method="bilinear")
    assert np.array_equal(out[..., 3], (alpha[0] + 0.5).floor().numpy().astype(np.uint8))


def test_full_opacity_changes_no_colour() -> None:
    """Oracle: the same picture without alpha; halves, which twice as many pixels make often, round the same way."""
    values = noise(60, 60, 3)
    opaque = np.concatenate([values, np.full((60, 60, 1), 255, np.uint8)], axis=2)
    out = np.concatenate(list(strips.Strips(Samples(opaque), (120, 120), Fraction(2), "bilinear")))
    assert np.array_equal(out[..., :3], whole(values, scale=2, method="bilinear"))
    assert (out[..., 3] == 255).all()


@pytest.mark.gpu
def test_strips_on_cuda() -> None:
    """Oracle: the CPU, bit for bit."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    values = noise(43, 31, 4)
    made = [list(strips.Strips(Samples(values), (160, 115), Fraction(37, 10), device=d)) for d in ("cpu", "cuda")]
    assert np.array_equal(np.concatenate(made[0]), np.concatenate(made[1]))


# --- files ----------------------------------------------------------------------------------------------------------


def save(path: Path, values: Array) -> Path:
    with path.open("wb") as stream:
        write = writers.write_png if path.suffix == ".png" else writers.write_tiff
        write(stream, [values], values.shape, values.dtype, b"a profile")  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_depth_channels_and_profile_are_kept(tmp_path: Path, channels: int, dtype: Any, suffix: str) -> None:
    """Oracle: the whole picture resized; depth, channels and profile of the input."""
    values = noise(11, 14, channels, dtype)
    source, target = save(tmp_path / f"in{suffix}", values), tmp_path / f"out{suffix}"
    done = course("upscale", source, "--scale", "3.7", "--out", target)
    assert done.exit_code == 0, done.output
    assert "52 x 41 pixels" in done.stdout
    samples = datasets.read_samples(target)
    assert np.array_equal(samples.values, whole(values, scale=3.7))
    assert samples.profile == b"a profile"
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"in{suffix}", f"out{suffix}"]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_files_are_read_by_others(tmp_path: Path, channels: int) -> None:
    """Oracle: Pillow, which checks the sums of every chunk; the strips' borders fall inside the picture."""
    values = noise(9, 6, channels)
    with (tmp_path / "a.png").open("wb") as stream:
        writers.write_png(stream, [values[:4], values[4:5], values[5:]], values.shape, values.dtype, None)  # type: ignore[arg-type]
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image).reshape(values.shape), values)


def test_tiff_files_are_read_by_others(tmp_path: Path) -> None:
    """Oracle: tifffile and Pillow."""
    path = save(tmp_path / "a.tif", noise(9, 6, 3, np.uint16))
    assert np.array_equal(tifffile.imread(path), noise(9, 6, 3, np.uint16))
    path = save(tmp_path / "b.tif", noise(9, 6, 4))
    with Image.open(path) as image:
        assert image.mode == "RGBA"
        assert np.array_equal(np.asarray(image), noise(9, 6, 4))


def test_orientation_is_applied_and_dropped(tmp_path: Path) -> None:
    """Oracle: a photograph taken with the camera on its side: 40 x 24 stored, 24 x 40 seen."""
    values = noise(24, 40, 3)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(values).save(tmp_path / "in.png", exif=exif)
    assert course("upscale", tmp_path / "in.png", "--scale", 2, "--out", tmp_path / "out.png").exit_code == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (48, 80)
        assert 274 not in image.getexif()
        assert np.array_equal(np.asarray(image), whole(np.rot90(values, -1), scale=2))


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy_formats(tmp_path: Path, suffix: str) -> None:
    """Oracle: the whole picture resized, to within what the format loses; the profile is kept."""
    array = datasets.to_uint8(datasets.photograph("chelsea", (40, 60)))
    Image.fromarray(array).save(tmp_path / "in.png", icc_profile=b"a profile")
    done = course("upscale", tmp_path / "in.png", "--size", "80x120", "--out", tmp_path / f"out{suffix}")
    assert done.exit_code == 0, done.output
    samples = datasets.read_samples(tmp_path / f"out{suffix}")
    assert np.abs(samples.values.astype(float) - whole(array, size=(80, 120))).mean() < 2
    assert samples.profile == b"a profile"


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_one_pixel_and_shrinking_work(tmp_path: Path, method: str) -> None:
    """Oracle: one pixel enlarged is flat; a picture shrunk to one pixel is what `resize` says."""
    save(tmp_path / "one.png", noise(1, 1, 3))
    assert (
        course(
            "upscale", tmp_path / "one.png", "--scale", "5.5", "--method", method, "--out", tmp_path / "a.png"
        ).exit_code
        == 0
    )
    values = datasets.read_samples(tmp_path / "a.png").values
    assert values.shape == (6, 6, 3)
    assert (values == noise(1, 1, 3)).all()
    save(tmp_path / "many.png", noise(30, 20, 3))
    assert (
        course(
            "upscale", tmp_path / "many.png", "--scale", "0.01", "--method", method, "--out", tmp_path / "b.png"
        ).exit_code
        == 0
    )
    came = datasets.read_samples(tmp_path / "b.png").values
    assert np.array_equal(came, whole(noise(30, 20, 3), scale=0.01, method=method))


def test_an_older_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    """Oracle: the bytes of the older file; with --force even the input may be replaced by its own enlargement."""
    source = save(tmp_path / "in.png", noise(5, 5, 3))
    (tmp_path / "out.png").write_bytes(b"precious")
    refused = course("upscale", source, "--scale", 2, "--out", tmp_path / "out.png")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
    assert "--force" in refused.stderr
    assert (tmp_path / "out.png").read_bytes() == b"precious"
    assert course("upscale", source, "--scale", 2, "--out", source, "--force").exit_code == 0
    assert np.array_equal(datasets.read_samples(source).values, whole(noise(5, 5, 3), scale=2))


# --- failures -------------------------------------------------------------------------------------------------------

USAGE = {
    "scale 0": (["--scale", "0"], "must be a positive number such as 2, 3.7 or 37/10, got '0'"),
    "scale negative": (["--scale", "-2"], "got '-2'"),
    "scale nan": (["--scale", "nan"], "got 'nan'"),
    "scale inf": (["--scale", "inf"], "got 'inf'"),
    "scale word": (["--scale", "big"], "got 'big'"),
    "scale over zero": (["--scale", "1/0"], "got '1/0'"),
    "scale endless": (["--scale", "1e999999999"], "got '1e999999999'"),
    "scale 1e12": (["--scale", "1e12"], "must be from 1e-06 to 1e+09, got 1e12"),
    "size 0": (["--size", "0x5"], "such as 1080x1920, got '0x5'"),
    "size word": (["--size", "big"], "got 'big'"),
    "both": (["--scale", "2", "--size", "5x5"], "exactly one of --scale and --size"),
    "neither": ([], "exactly one of --scale and --size"),
    "method": (["--scale", "2", "--method", "sinc"], "must be one of nearest, bilinear, bicubic; got 'sinc'"),
}


def one_line(stderr: str) -> str:
    """The error line; the progress bar may stand before it."""
    lines = [line for line in stderr.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    return lines[0]


@pytest.mark.parametrize("case", USAGE)
def test_misunderstandings_are_usage_errors(tmp_path: Path, case: str) -> None:
    """Oracle: exit code 2, the option and what came on stderr, no file."""
    words, message = USAGE[case]
    source = save(tmp_path / "in.png", noise(4, 4, 3))
    done = course("upscale", source, "--out", tmp_path / "out.png", *words)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.parametrize("name", ["out.bmp", "out", "out.png.txt"])
def test_an_unknown_extension_is_a_usage_error(tmp_path: Path, name: str) -> None:
    """Oracle: exit code 2 and the list of extensions."""
    done = course("upscale", save(tmp_path / "in.png", noise(4, 4, 3)), "--scale", 2, "--out", tmp_path / name)
    assert done.exit_code == 2
    assert ".png, .tif, .tiff, .jpg, .jpeg, .webp" in " ".join(done.stderr.split())


FAILURES: dict[str, tuple[Array, list[str], str, str]] = {
    "scale 1e9": (noise(4, 4, 3), ["--scale", "1e9"], "out.png", "4,000,000,000 x 4,000,000,000 pixels"),
    "jpeg side": (noise(4, 4, 3), ["--size", "65501x1"], "out.jpg", "JPEG holds at most 65,500"),
    "webp side": (noise(4, 4, 3), ["--size", "1x16384"], "out.webp", "WebP holds at most 16,383"),
    "jpeg memory": (noise(4, 4, 3), ["--size", "40000x40000"], "out.jpg", "--out out.png"),
    "jpeg 16 bit": (noise(4, 4, 3, np.uint16), ["--scale", "2"], "out.jpg", "16 bits a sample and JPEG holds 8"),
    "jpeg alpha": (noise(4, 4, 4), ["--scale", "2"], "out.jpg", "transparency, which JPEG would lose"),
    "webp grey alpha": (noise(4, 4, 2), ["--scale", "2"], "out.webp", "transparency"),
    "device": (noise(4, 4, 3), ["--scale", "2", "--device", "cuda:99"], "out.png", "CUDA devices"),
    "device word": (noise(4, 4, 3), ["--scale", "2", "--device", "gpu"], "out.png", "got 'gpu'"),
    "no folder": (noise(4, 4, 3), ["--scale", "2"], "missing/out.png", "does not exist"),
    "no place": (noise(4, 4, 3), ["--scale", "2"], "in.png/out.png", "is not a folder"),
    "folder": (noise(4, 4, 3), ["--scale", "2"], "folder.png", "it is a folder"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_cannot_be_done_is_refused_before_anything_is_touched(tmp_path: Path, case: str) -> None:
    """Oracle: exit code 1, one line that names the reason, the folder as before."""
    values, words, name, message = FAILURES[case]
    source = save(tmp_path / "in.png", values)
    (tmp_path / "folder.png").mkdir()
    done = course("upscale", source, *words, "--out", tmp_path / name)
    assert done.exit_code == 1, done.output
    assert message in one_line(done.stderr)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "in.png"]


@pytest.mark.parametrize(("suffix", "free"), [(".tif", 100 * 100 * 3 - 1), (".png", 100 * 100 * 3 // 10 - 1)])
def test_a_disk_without_room_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, free: int
) -> None:
    """Oracle: 30 000 bytes of pixels (a tenth where packed), a disk one byte too small, then one that suffices."""
    source, target = save(tmp_path / "in.png", noise(4, 4, 3)), tmp_path / f"out{suffix}"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    refused = course("upscale", source, "--size", "100x100", "--out", target)
    assert refused.exit_code == 1
    assert "GB free; choose a smaller --scale" in one_line(refused.stderr)
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free + 1))
    assert course("upscale", source, "--size", "100x100", "--out", target).exit_code == 0


def test_unreadable_pictures_are_refused(tmp_path: Path) -> None:
    """Oracle: exit code 1, the file named, an older result kept although --force was given."""
    whole_file = save(tmp_path / "in.png", noise(9, 9, 3)).read_bytes()
    (tmp_path / "out.png").write_bytes(b"precious")
    for content, message in (
        (b"", "empty"),
        (whole_file[:200], "truncated"),
        (b"text", "not a picture"),
        (None, "No such file"),
    ):
        (tmp_path / "in.png").unlink()
        if content is not None:
            (tmp_path / "in.png").write_bytes(content)
        else:
            (tmp_path / "x").mkdir()
        done = course("upscale", tmp_path / "in.png", "--scale", 2, "--out", tmp_path / "out.png", "--force")
        assert done.exit_code == 1
        line = one_line(done.stderr)
        assert "in.png" in line
        assert message in line
        assert (tmp_path / "out.png").read_bytes() == b"precious"


@contextlib.contextmanager
def small_disk() -> Iterator[None]:
    """The operating system refuses to let any file of this process grow beyond 100 bytes.

    No fixture: what pytest says would be refused as well, where it goes to a file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_a_disk_that_fills_up_loses_nothing(tmp_path: Path, suffix: str) -> None:
    """Oracle: the kernel's own refusal in the middle of each writer; the older file survives, alone."""
    source, target = save(tmp_path / "in.png", noise(9, 9, 3)), tmp_path / f"out{suffix}"
    target.write_bytes(b"precious")
    with small_disk():
        done = course("upscale", source, "--scale", 9, "--out", target, "--force")
    assert done.exit_code == 1, repr(done.exception)
    assert "no space left on the disk" in one_line(done.stderr)
    assert target.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png", target.name]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_being_stopped_leaves_nothing_behind(tmp_path: Path, name: str, code: int) -> None:
    """Oracle: a real signal while the hidden neighbour exists; exit code 128 + its number, the folder as before."""
    source = save(tmp_path / "in.png", noise(600, 600, 3))
    command = [*COURSE, "upscale", str(source), "--scale", "30", "--out", str(tmp_path / "out.png")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        limit = time.monotonic() + 60
        while not list(tmp_path.glob(".out.png.*")) and time.monotonic() < limit:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.Signals[name])
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert (stderr.splitlines()[-1] == "stopped") == (name == "SIGINT")
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]


PEAK = """
import json, resource, sys
from course_lib.cli import app
import course_lib.cli.upscale
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
app(sys.argv[1:], standalone_mode=False)
print(json.dumps([before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_does_not_grow_with_the_result(tmp_path: Path) -> None:
    """Oracle: the operating system's peak: a result of 240 MB (1.9 GB in float64) adds under 300 MB to the imports."""
    small = datasets.to_uint8(datasets.photograph("coffee", (400, 1000)))
    Image.fromarray(small).save(tmp_path / "in.png")
    words = ["upscale", str(tmp_path / "in.png"), "--scale", "14.1", "--out", str(tmp_path / "out.tif")]
    done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True)
    before, peak = json.loads(done.stdout.splitlines()[-1])
    assert (tmp_path / "out.tif").stat().st_size > 5640 * 14100 * 3
    assert (peak - before) / 1024 < 300
