"""The command line with trained networks, and folders of pictures. Oracles: the networks called directly."""

import json
import os
import pickle
import subprocess
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from typer.testing import CliRunner

from course_lib import checkpoints, datasets, measurements
from course_lib.cli import app, folder, networks
from course_lib.cli import evaluate as evaluating
from course_lib.datasets import Samples
from course_lib.super_resolution.edsr import EDSR
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.luminance import enlarge_rgb
from course_lib.super_resolution.metrics import enlarger, score
from course_lib.super_resolution.san import SAN
from tests.cli.test_upscale import COURSE, noise, one_line, save


def course(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def nets(tmp_path: Path) -> dict[str, tuple[Path, nn.Module]]:
    """Untrained small networks whose output is added to bicubic, in files of ours, in a folder beside the pictures."""
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {
        "edsr": EDSR(2, blocks=1, channels=4, added=True),
        "liif": LIIF("edsr-tiny", (8,), added=True),
        "espcn": ESPCN(3, added=True),
    }
    (tmp_path / "nets").mkdir()
    for name, model in made.items():
        checkpoints.save(tmp_path / "nets" / f"{name}.safetensors", model)
    return {name: (tmp_path / "nets" / f"{name}.safetensors", model.eval()) for name, model in made.items()}


def planes(values: Any) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1) / np.iinfo(values.dtype).max


def samples(result: torch.Tensor, dtype: Any) -> Any:
    top = np.iinfo(dtype).max
    return (result * top + 0.5).clamp(0, top).floor().permute(1, 2, 0).numpy().astype(dtype)


def near(came: Any, expected: Any) -> bool:
    """Equal but for what rounds the other way."""
    return came.shape == expected.shape and int(np.abs(came.astype(int) - expected.astype(int)).max()) <= 1


@pytest.mark.parametrize(("net", "words", "how"), [("edsr", [], {}), ("liif", ["--scale", "3.4"], {"scale": 3.4})])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour(nets: Any, net: str, words: list[str], how: Any, dtype: Any, tmp_path: Path) -> None:
    path, model = nets[net]
    values = noise(11, 14, 3, dtype)
    source = save(tmp_path / "in.png", values)
    done = course("upscale", source, "--checkpoint", path, *words, "--tile", 5, "--out", tmp_path / "out.png")
    assert done.exit_code == 0, done.output
    with torch.no_grad():
        expected = samples(model(planes(values), **how), dtype)
    came = datasets.read_samples(tmp_path / "out.png")
    assert came.values.dtype == dtype
    assert near(came.values, expected)
    assert came.profile == b"a profile"


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_and_alpha(nets: Any, channels: int, tmp_path: Path) -> None:
    """Oracle: grey is the network on three equal channels; alpha is the bicubic enlargement of alpha alone."""
    path, model = nets["edsr"]
    values = noise(11, 14, channels)
    values[..., -1] = np.maximum(values[..., -1], 1)  # everything is seen
    done = course("upscale", save(tmp_path / "in.png", values), "--checkpoint", path, "--out", tmp_path / "out.png")
    assert done.exit_code == 0, done.output
    came = datasets.read_samples(tmp_path / "out.png").values
    colours = values[..., :3] if channels == 4 else np.repeat(values[..., :1], 3, axis=2)
    with torch.no_grad():
        expected = model(planes(colours))
    if channels < 3:
        expected = (expected * torch.tensor([65.481, 128.553, 24.966]).view(3, 1, 1) / 219).sum(0, keepdim=True)
    expected = samples(expected, np.uint8)
    assert near(came[..., : expected.shape[2]], expected)
    if channels in (2, 4):
        save(tmp_path / "alpha.png", values[..., -1:])
        course("upscale", tmp_path / "alpha.png", "--scale", 2, "--out", tmp_path / "large.png")
        assert np.array_equal(came[..., -1:], datasets.read_samples(tmp_path / "large.png").values)


def test_what_is_invisible_does_not_bleed(nets: Any) -> None:
    """Oracle: the result does not depend on colours that nobody sees; where all is seen nothing is changed."""
    model, results = nets["edsr"][1], []
    for green in (0, 255):
        values = np.full((13, 9, 4), (250, 10, 10, 255), np.uint8)
        values[:, 5:] = (0, green, 0, 0)
        results.append(np.concatenate(list(networks.NetworkStrips(model, Samples(values), None, None))))
    assert np.array_equal(results[0], results[1])
    hidden = networks._planes(Samples(values))
    assert torch.allclose(hidden[:, :, 5:], hidden[:, :, :1].expand(-1, -1, 4), atol=1e-6)


def test_luminance_networks(nets: Any, tmp_path: Path) -> None:
    """Oracle: `enlarge_rgb`; the official port's file has its sigmoid."""
    _, model = nets["espcn"]
    values = noise(11, 14, 3)
    torch.save(ESPCN(3).state_dict(), tmp_path / "port.pth")
    port = ESPCN(3, output="sigmoid")
    port.load_state_dict(torch.load(tmp_path / "port.pth", weights_only=True))
    for path, network in ((nets["espcn"][0], model), (tmp_path / "port.pth", port)):
        done = course(
            "upscale", save(tmp_path / "in.png", values), "--checkpoint", path, "--out", tmp_path / "x.png", "--force"
        )
        assert done.exit_code == 0, done.output
        with torch.no_grad():
            expected = samples(enlarge_rgb(network, planes(values), 3), np.uint8)
        assert near(datasets.read_samples(tmp_path / "x.png").values, expected)


def test_notes(nets: Any, tmp_path: Path) -> None:
    """Oracle: the words; outside the training range and seams are said, not refused."""
    source = save(tmp_path / "in.png", noise(11, 14, 3))
    done = course(
        "upscale", source, "--checkpoint", nets["liif"][0], "--scale", 8, "--tile", 5, "--overlap", 3,
        "--out", tmp_path / "x.png",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "note: scale 8 is outside x1 to x4" in done.stderr
    assert "seams may show" in done.stderr


def test_the_cost_of_tiles_without_seams_is_told() -> None:
    """Oracle: the pixels that all tiles see, counted one by one, over those of the picture."""
    network = LIIF("rdn-tiny", (8,))
    samples, radius = Samples(noise(60, 80, 3)), network.radius
    seen = sum(
        (min(60, y + 10 + radius) - max(0, y - radius)) * (min(80, x + 10 + radius) - max(0, x - radius))
        for y in range(0, 60, 10)
        for x in range(0, 80, 10)
    )
    (note,) = networks.NetworkStrips(network, samples, None, Fraction(2), tile=10).notes
    assert note.startswith(f"tiles without seams take {seen / 4800:.0f} times the arithmetic here")
    assert f"looks {radius} pixels around; a larger --tile takes more memory and less time, a smaller --overlap" in note
    assert not networks.NetworkStrips(network, samples, None, Fraction(2), tile=80).notes


def test_a_network_that_sees_everything_says_so() -> None:
    """Oracle: the words, with tiles that see all and with tiles that do not."""
    network, samples = SAN(2, groups=1, blocks=1, channels=16), Samples(noise(20, 30, 3))
    for overlap, rest in ((None, "; a larger --tile"), (2, " and tiles overlap by 2: seams may show")):
        (note,) = networks.NetworkStrips(network, samples, None, None, tile=5, overlap=overlap).notes
        assert f"network looks at the whole picture{rest}" in note


def test_the_memory_of_a_network_that_sees_everything_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: three times what goes into and out of its largest layer, 16 + 64 numbers for each pixel."""
    network, samples = SAN(2, groups=1, blocks=1, channels=16), Samples(noise(20, 30, 3))
    strips = networks.NetworkStrips(network, samples, None, None)
    assert not strips.notes
    assert strips.tiles.memory == 3 * 4 * 80 * 20 * 30
    monkeypatch.setattr(networks, "_HEAVY", 5e5)
    (note,) = strips.notes
    assert note.startswith("a tile takes about 0.0 GB of memory, because this network looks at the whole picture; --")
    assert not networks.NetworkStrips(network, samples, None, None, tile=10, overlap=5).tiles.memory > 5e5


USAGE = {
    "both": (["--model", "espcn-x3", "--checkpoint", "a.pth"], "give one of --model and --checkpoint"),
    "method": (["--model", "espcn-x3", "--method", "nearest"], "leave it out with a network"),
    "as": (["--model", "espcn-x3", "--as", "espcn_x3"], "goes with --checkpoint"),
    "tile": (["--scale", "2", "--tile", "5"], "are of networks"),
    "tile 0": (["--model", "espcn-x3", "--tile", "0"], "'--tile': must be a whole number at least 1; got '0'"),
    "overlap": (["--model", "espcn-x3", "--overlap", "few"], "a whole number at least 0; got 'few'"),
    "model": (["--model", "magic"], "must be one of"),
    "scale": (["--model", "espcn-x3", "--scale", "2", "--size", "4x4"], "exactly one of --scale and --size"),
    "format": (["--model", "espcn-x3", "--format", "png"], "is for folders"),
}


@pytest.mark.parametrize("case", USAGE)
def test_misunderstandings(case: str, tmp_path: Path) -> None:
    """Oracle: exit code 2, the reason, nothing written."""
    words, message = USAGE[case]
    done = course("upscale", save(tmp_path / "in.png", noise(4, 4, 3)), "--out", tmp_path / "out.png", *words)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_refusals_before_anything_is_touched(nets: Any, tmp_path: Path) -> None:
    """Oracle: exit code 1, one line that names the reason, no file."""
    source, out = save(tmp_path / "in.png", noise(4, 4, 3)), tmp_path / "out.png"
    torch.save({"conv1.weight": torch.zeros(64, 1, 5, 5)}, tmp_path / "part.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "list.pth").read_bytes()[:600])
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(Path("x"), protocol=4))
    torch.save(torch.zeros(2), tmp_path / "one.pth")
    cases: list[tuple[list[object], str]] = [
        (
            ["--checkpoint", nets["edsr"][0], "--scale", 3],
            "file-edsr was trained for scale 2 and has no other; got --scale 3",
        ),
        (["--checkpoint", nets["edsr"][0], "--size", "8x9"], "size must be 8 x 8"),
        (["--checkpoint", nets["liif"][0]], "file-liif enlarges by any scale; say which: --scale 3.4"),
        (["--checkpoint", tmp_path / "none.pth"], "there is no checkpoint"),
        (["--checkpoint", tmp_path / "text.pth"], "is no checkpoint"),
        (["--checkpoint", tmp_path / "part.pth"], "the nearest: espcn_x2: 5 missing"),
        (["--checkpoint", tmp_path / "part.pth", "--as", "magic"], "edsr_baseline_x2, edsr_baseline_x3"),
        (
            ["--checkpoint", tmp_path / "part.pth", "--as", "espcn_x3"],
            "part.pth: these are not the weights of espcn_x3",
        ),
        (["--checkpoint", tmp_path / "list.pth"], "list.pth: state_dict must be {name: tensor}, got list [1, 2]"),
        (["--checkpoint", tmp_path / "bare.pkl"], "bare.pkl is damaged, or holds more than tensors"),
        (
            ["--checkpoint", tmp_path / "half.pth"],
            "no checkpoint of torch.save (PytorchStreamReader failed reading zip",
        ),
        (["--checkpoint", tmp_path / "one.pth"], "one.pth: state_dict must be {name: tensor}, got Tensor"),
    ]
    for words, message in cases:
        done = course("upscale", source, "--out", out, *words)
        assert done.exit_code == 1, (words, done.output)
        assert message in one_line(done.stderr)
        assert not out.exists()


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def holiday(tmp_path: Path) -> Path:
    """Five pictures, a broken one, and a file that is no picture."""
    folder = tmp_path / "holiday"
    folder.mkdir()
    for k in range(5):
        save(folder / f"{k}.png", noise(4 + k, 5, 3))
    (folder / "broken.jpg").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("sunny")
    return folder


def test_a_folder_goes_on_where_it_stopped(holiday: Path, nets: Any, tmp_path: Path) -> None:
    """Oracle: the same commands for single pictures; what is there is kept, --force makes it again."""
    out = tmp_path / "deep" / "large"
    words = ["upscale", holiday, "--checkpoint", nets["edsr"][0], "--out", out]
    done = course(*words)
    assert done.exit_code == 1
    assert "5 made, 0 already there, 1 not made" in done.stdout
    assert one_line(done.stderr).endswith("not enlarged: broken.jpg")
    assert "note: broken.jpg: " in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [f"{k}.png" for k in range(5)]
    assert (
        course("upscale", holiday / "3.png", "--checkpoint", nets["edsr"][0], "--out", tmp_path / "3.png").exit_code
        == 0
    )
    assert (out / "3.png").read_bytes() == (tmp_path / "3.png").read_bytes()
    (holiday / "broken.jpg").unlink()
    (out / "1.png").unlink()
    (out / "2.png").write_bytes(b"precious")
    again = course(*words)
    assert again.exit_code == 0
    assert "1 made, 4 already there, 0 not made" in again.stdout
    assert (out / "2.png").read_bytes() == b"precious"
    assert "5 made" in course(*words, "--force").stdout
    assert (out / "2.png").read_bytes() != b"precious"


def test_folders_of_interpolation_in_another_format(holiday: Path, tmp_path: Path) -> None:
    (holiday / "broken.jpg").unlink()
    done = course("upscale", holiday, "--scale", 2, "--format", "tif", "--out", tmp_path / "large")
    assert done.exit_code == 0, done.output
    assert datasets.read_samples(tmp_path / "large" / "0.tif").values.shape == (8, 10, 3)


def test_folders_that_are_refused(holiday: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    done = course("upscale", holiday, "--scale", 2, "--out", tmp_path / "new.png")
    assert done.exit_code == 2
    assert "IMAGE is a folder, so it must be one for the results; got" in " ".join(done.stderr.split())
    save(holiday / "0.tif", noise(4, 4, 3))
    for source, out, message in (
        (tmp_path / "empty", tmp_path / "new", "no picture is in"),
        (tmp_path / "none", tmp_path / "new", "none: No such file or folder"),
        (holiday, tmp_path / "file", "name a folder for the results"),
        (holiday, holiday, "name another folder"),
        (holiday, tmp_path / "new", "0.png and 0.tif would both become"),
    ):
        done = course("upscale", source, "--scale", 2, "--out", out)
        assert done.exit_code == 1
        assert message in one_line(done.stderr)
        assert not (tmp_path / "new").exists()


def test_processes_share_a_folder(holiday: Path, tmp_path: Path) -> None:
    """Oracle: two processes as torchrun starts them: each makes its own half, and both together all."""
    (holiday / "broken.jpg").unlink()
    command = [*COURSE, "upscale", str(holiday), "--scale", "2", "--out", str(tmp_path / "large")]
    both = [
        subprocess.Popen(
            command,
            env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "3 made" in told[0]
    assert "2 made" in told[1]
    assert sorted(path.name for path in (tmp_path / "large").iterdir()) == [f"{k}.png" for k in range(5)]


def test_a_failed_process_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: torchrun stops all processes when one fails, so it must not end before the others are through; those
    that did not fail go at once. A store of our own stands for torchrun's.
    """
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    told = {"MASTER_ADDR": "localhost", "MASTER_PORT": store.port, "TORCHELASTIC_RUN_ID": "x"}
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(folder, "_POLL", 0.01)
    failed = threading.Thread(target=folder.Process(0, 3, 0).leave, args=[True])
    failed.start()
    for rank in (1, 2):
        failed.join(0.2)
        assert failed.is_alive()
        folder.Process(rank, 3, rank).leave(False)
    failed.join(60)
    assert not failed.is_alive()


def test_the_environment_of_processes(holiday: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand; one picture is the first process's work, and numbers that make no sense are refused."""
    from course_lib.cli.folder import Process

    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert Process.here() == Process(5, 8, 1)
    assert Process.here().device("cuda") == "cuda:1"
    assert Process.here().device("cpu") == "cpu"
    assert course("upscale", holiday / "0.png", "--scale", 2, "--out", tmp_path / "x.png").exit_code == 0
    assert not (tmp_path / "x.png").exists()
    monkeypatch.setenv("RANK", "8")
    done = course("upscale", holiday, "--scale", 2, "--out", tmp_path / "new")
    assert done.exit_code == 1
    assert "RANK below WORLD_SIZE; got RANK=8, WORLD_SIZE=8" in one_line(done.stderr)


def test_stopping_leaves_no_half_of_anything(
    holiday: Path, nets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the folders before; Ctrl-C while the first picture is written."""

    def stop(self: Any) -> Any:
        yield np.zeros((1, self.shape[1], 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr(networks.NetworkStrips, "__iter__", stop)
    done = course("upscale", holiday, "--checkpoint", nets["edsr"][0], "--out", tmp_path / "new")
    assert done.exit_code == 130
    assert not (tmp_path / "new").exists()


# --- evaluation -----------------------------------------------------------------------------------------------------


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two small pictures that stand in for a benchmark, and a measurements folder of our own."""
    arrays = [datasets.to_uint8(datasets.photograph(name, (60, 62))) for name in ("chelsea", "camera")]
    monkeypatch.setattr(datasets, "pictures", lambda name: iter(zip(("a", "b"), arrays, strict=True)))
    monkeypatch.setattr(measurements, "data_dir", lambda: tmp_path / "data")
    return arrays


@pytest.mark.parametrize(
    ("net", "words", "scale", "protocol", "suffix"),
    [
        ("liif", ["--scale", "3.5"], 3.5, "benchmark", ""),
        ("liif", ["--scale", "2", "--protocol", "div2k"], 2, "div2k", "_div2k"),
        ("edsr", [], 2, "benchmark", ""),
        ("espcn", ["--protocol", "benchmark"], 3, "benchmark", "_benchmark"),
    ],
)
def test_networks_are_measured(
    nets: Any, toys: list[Any], net: str, words: list[str], scale: float, protocol: Any, suffix: str
) -> None:
    """Oracle: `metrics.score` of `metrics.enlarger`, which knows no tiles."""
    path, model = nets[net]
    done = course("evaluate", "sr", "--checkpoint", path, *words, "--save")
    assert done.exit_code == 0, done.output
    record = measurements.read(f"evaluate_sr_file-{net}_Set5{suffix}")
    assert record["protocol"] == evaluating.PROTOCOLS[protocol]
    row = record["values"][f"{scale:g}"]
    for name, array in zip("ab", toys, strict=True):
        expected = score(datasets.from_uint8(array), enlarger(model), scale, protocol)
        assert row["pictures"][name] == pytest.approx(expected, abs=2e-3)
    assert f"x{scale:g} " in done.stdout


def test_interpolation_by_another_protocol(toys: list[Any]) -> None:
    done = course("evaluate", "sr", "--scale", "3.5", "--scale", 2, "--protocol", "benchmark", "--save")
    assert done.exit_code == 0, done.output
    record = measurements.read("evaluate_sr_bicubic_Set5_benchmark")
    assert list(record["values"]) == ["2", "3.5"]
    assert (
        record["command"] == "course evaluate sr --model bicubic --data Set5 --scale 2 --scale 3.5 --protocol benchmark"
    )
    expected = score(datasets.from_uint8(toys[0]), enlarger("bicubic"), 3.5)
    assert record["values"]["3.5"]["pictures"]["a"] == pytest.approx(expected, abs=1e-6)


def test_models_side_by_side(nets: Any, toys: list[Any], tmp_path: Path) -> None:
    """Oracle: each model measured alone; several are measured by one protocol, that of networks for RGB."""
    path, model = nets["liif"]
    out = tmp_path / "both.json"
    words = ["--model", "bicubic", "--checkpoint", path, "--scale", 2, "--scale", "3.5", "--save", "--out", out]
    done = course("evaluate", "sr", *words)
    assert done.exit_code == 0, done.output
    both = json.loads(out.read_text(encoding="utf-8"))
    assert both["command"] == (
        "course evaluate sr --model bicubic --checkpoint liif.safetensors --data Set5 --scale 2 --scale 3.5 "
        "--protocol benchmark"
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "PSNR (dB) / SSIM on Set5, protocol benchmark"
    assert lines[1].split() == ["scale", "bicubic", "file-liif"]
    for name, saved, chosen in (
        ("bicubic", "bicubic_Set5_benchmark", "bicubic"),
        ("file-liif", "file-liif_Set5", model),
    ):
        record = measurements.read(f"evaluate_sr_{saved}")
        assert both["values"][name] == record["values"]
        rows = record["values"]["3.5"]
        expected = score(datasets.from_uint8(toys[0]), enlarger(chosen), 3.5)
        assert rows["pictures"]["a"] == pytest.approx(expected, abs=2e-3)
        assert f"{rows['psnr']:.2f} / {rows['ssim']:.4f}" in lines[3]
    words = ["--checkpoint", nets["edsr"][0], "--model", "nearest", "--model", "nearest", "--out", out, "--force"]
    done = course("evaluate", "sr", *words)
    assert json.loads(out.read_text(encoding="utf-8"))["command"] == (
        "course evaluate sr --model nearest --checkpoint edsr.safetensors --data Set5 --protocol benchmark"
    )  # no scale, because one that is named is asked of all
    assert [line.split()[:2] for line in done.stdout.splitlines()[2:5]] == [[f"x{k}", ANY] for k in (2, 3, 4)]
    assert [line.split()[-1] == "-" for line in done.stdout.splitlines()[2:5]] == [False, True, True]


def test_measurements_that_are_refused(nets: Any, toys: list[Any]) -> None:
    for words, message in (
        (["--scale", "3.5"], "protocol luminance takes whole scales, got 3.5"),
        (["--checkpoint", nets["edsr"][0], "--scale", "3"], "was trained for scale 2 and has no other; got 3"),
        (["--checkpoint", nets["edsr"][0], "--protocol", "luminance"], "file-edsr takes RGB"),
        (["--device", "tpu"], "got 'tpu'"),
    ):
        done = course("evaluate", "sr", *words)
        assert done.exit_code == 1, done.output
        assert message in done.stderr
    assert course("evaluate", "sr", "--scale", "0.5").exit_code == 2
