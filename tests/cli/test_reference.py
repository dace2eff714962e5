"""`course upscale --reference` and `course evaluate reference`. Oracles: TTSR asked for the whole picture at once, and
`metrics` called directly.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from course_lib import checkpoints, datasets
from course_lib.cli import evaluate_reference as evaluating
from course_lib.cli import networks, referenced
from course_lib.cli.referenced import Referenced
from course_lib.datasets import Samples
from course_lib.super_resolution import metrics
from course_lib.super_resolution.edsr import EDSR
from course_lib.super_resolution.layers import bicubic
from course_lib.super_resolution.tiles import tiled
from course_lib.super_resolution.ttsr import TTSR, bicubic_up
from tests.cli.test_networks import course, near, planes, samples
from tests.cli.test_upscale import noise, one_line, save
from tests.parity import fill


@pytest.fixture
def net() -> TTSR:
    """A small network whose textures are seen in its result."""
    torch.manual_seed(0)
    model = TTSR(4, (1, 1, 1, 1), (4, 6, 8), added=True)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    with torch.no_grad():
        model.tail.tail2.weight.mul_(0.01)
    return model.eval()


@pytest.fixture
def file(net: TTSR, tmp_path: Path) -> Path:
    (tmp_path / "nets").mkdir()
    path = tmp_path / "nets" / "ttsr.safetensors"
    checkpoints.save(path, net)
    return path


def enlarged(net: TTSR, values: Any, reference: Any = None) -> Tensor:
    """What the network makes of the whole picture at once."""
    with torch.no_grad():
        large: Tensor = net(planes(values), ref=None if reference is None else planes(reference))
    return large


@pytest.mark.parametrize("tile", [None, 7])
def test_a_picture_with_a_reference(net: TTSR, file: Path, tile: int | None, tmp_path: Path) -> None:
    """Oracle: the network asked for the whole picture; the reference is cut to multiples of 4, and is of use."""
    values, other = noise(13, 17, 3), noise(26, 35, 3)[::-1]
    words = ["--checkpoint", file, "--reference", save(tmp_path / "other.png", other), "--out", tmp_path / "out.png"]
    done = course("upscale", save(tmp_path / "in.png", values), *words, *(["--tile", tile] if tile else []))
    assert done.exit_code == 0, done.output
    assert "note" not in done.stderr or tile
    came = datasets.read_samples(tmp_path / "out.png")
    assert came.values.shape == (52, 68, 3)
    assert came.profile == b"a profile"
    assert near(came.values, samples(enlarged(net, values, other), np.uint8))
    alone = samples(enlarged(net, values), np.uint8)
    assert np.abs(came.values.astype(int) - alone.astype(int)).mean() > 1


@pytest.mark.parametrize(("pairs", "block"), [(2**25, 128), (6 * 54, 5), (1, 3)])
def test_tiles_and_blocks_leave_no_seams(net: TTSR, pairs: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: index and S of the whole picture at once, exactly; the result to rounding."""
    monkeypatch.setattr(referenced, "_PAIRS", pairs)
    monkeypatch.setattr(referenced, "_BLOCK", block)
    lr, ref = planes(noise(21, 33, 3)), planes(noise(24, 36, 3)[:, ::-1].copy())
    with torch.no_grad():
        model, seen = Referenced(net, ref).over(lr)
        up = bicubic_up(lr[None])
        textures = net.textures(up, ref[None])
        assert torch.equal(seen[3], textures.index[0].float())
        assert torch.allclose(seen[4], textures.soft[0, 0], atol=1e-5)
        whole = net(lr, ref=ref)
    for tile in (None, 9):
        assert torch.allclose(tiled(model, seen, tile=tile), whole, atol=2e-5)


def test_what_a_query_reads_is_within_its_margin(net: TTSR) -> None:
    """Oracle: gradients of the coarsest features, and of S with the patch's neighbours: none beyond the margin."""
    lr = torch.rand(1, 3, 31, 31, requires_grad=True)
    features = net.extractor(bicubic(lr, 4))[-1][0, :, 14:17, 14:17]
    (gradient,) = torch.autograd.grad(features.square().sum(), lr)
    rows = gradient[0].abs().amax((0, 2)).nonzero().flatten()
    assert 15 - referenced._REACH <= int(rows.min()) <= int(rows.max()) <= 15 + referenced._REACH


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_alpha_and_a_deep_reference(net: TTSR, file: Path, channels: int, tmp_path: Path) -> None:
    """Oracle: grey is three equal channels, in the picture as in the reference; 16 bits a sample are read as such."""
    values, other = noise(9, 11, channels), noise(16, 20, 1, np.uint16)
    if channels in (2, 4):
        values[..., -1] = 255
    words = ["--checkpoint", file, "--reference", save(tmp_path / "other.png", other), "--out", tmp_path / "out.png"]
    done = course("upscale", save(tmp_path / "in.png", values), *words)
    assert done.exit_code == 0, done.output
    came = datasets.read_samples(tmp_path / "out.png").values
    colours = values[..., :3] if channels == 4 else np.repeat(values[..., :1], 3, axis=2)
    expected = enlarged(net, colours, np.repeat(other, 3, axis=2))
    if channels < 3:
        expected = (expected * torch.tensor([65.481, 128.553, 24.966]).view(3, 1, 1) / 219).sum(0, keepdim=True)
    assert near(came[..., : len(expected)], samples(expected, np.uint8))


def test_sixteen_bits_are_not_rounded_to_eight(net: TTSR, file: Path, tmp_path: Path) -> None:
    """Oracle: the network with the enlargement that is not rounded; rounded, it would have steps of 257."""
    values = noise(9, 11, 3, np.uint16)
    words = ["--checkpoint", file, "--out", tmp_path / "out.tif"]
    done = course("upscale", save(tmp_path / "in.tif", values), *words)
    assert done.exit_code == 0, done.output
    with torch.no_grad():
        lr = planes(values)
        expected = samples(net(lr, bicubic(lr, 4)), np.uint16)
    came = datasets.read_samples(tmp_path / "out.tif").values
    assert np.abs(came.astype(int) - expected.astype(int)).max() <= 1


def test_without_a_reference_the_network_works_alone(net: TTSR, file: Path, tmp_path: Path) -> None:
    """Oracle: the network without; a note says it."""
    values = noise(9, 11, 3)
    done = course(
        "upscale", save(tmp_path / "in.png", values), "--checkpoint", file, "--tile", 4, "--out", tmp_path / "x.png"
    )
    assert done.exit_code == 0, done.output
    assert "note: there is no --reference: the network works alone" in done.stderr
    assert near(datasets.read_samples(tmp_path / "x.png").values, samples(enlarged(net, values), np.uint8))


def test_the_picture_as_its_own_reference(net: TTSR, file: Path, tmp_path: Path) -> None:
    """Oracle: the network; a note says that there is nothing to gain."""
    values = noise(9, 12, 3)
    source = save(tmp_path / "in.png", values)
    done = course("upscale", source, "--checkpoint", file, "--reference", source, "--out", tmp_path / "x.png")
    assert done.exit_code == 0, done.output
    assert "note: the reference is the picture itself" in done.stderr
    came = datasets.read_samples(tmp_path / "x.png").values
    assert near(came, samples(enlarged(net, values, values), np.uint8))


def test_an_official_checkpoint(tmp_path: Path) -> None:
    """Oracle: the same weights loaded and asked directly; its result is clamped."""
    from course_lib import official

    torch.save(fill.weights(fill.manifest("ttsr")), tmp_path / "TTSR.pt")
    values, other = noise(5, 6, 3), noise(12, 16, 3)
    words = ["--checkpoint", tmp_path / "TTSR.pt", "--reference", save(tmp_path / "other.png", other)]
    done = course("upscale", save(tmp_path / "in.png", values), *words, "--out", tmp_path / "x.png")
    assert done.exit_code == 0, done.output
    model = official.load("ttsr", official.contents(tmp_path / "TTSR.pt")).eval()
    assert isinstance(model, TTSR)
    assert near(datasets.read_samples(tmp_path / "x.png").values, samples(enlarged(model, values, other), np.uint8))


def test_a_folder_shares_a_reference(net: TTSR, file: Path, tmp_path: Path) -> None:
    """Oracle: the network for each picture; the reference is read and looked at once."""
    (tmp_path / "album").mkdir()
    for k in range(3):
        save(tmp_path / "album" / f"{k}.png", noise(6 + k, 7, 3))
    other = noise(16, 20, 3)
    words = ["--checkpoint", file, "--reference", save(tmp_path / "other.png", other), "--out", tmp_path / "large"]
    done = course("upscale", tmp_path / "album", *words)
    assert done.exit_code == 0, done.output
    for k in range(3):
        came = datasets.read_samples(tmp_path / "large" / f"{k}.png").values
        assert near(came, samples(enlarged(net, noise(6 + k, 7, 3), other), np.uint8))


def test_refusals_before_anything_is_touched(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: exit code and reason; what was there stays as it was."""
    source, other = save(tmp_path / "in.png", noise(6, 7, 3)), save(tmp_path / "other.png", noise(16, 20, 3))
    before, out = other.read_bytes(), tmp_path / "out.png"
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    save(tmp_path / "small.png", noise(3, 20, 3))
    checkpoints.save(tmp_path / "edsr.safetensors", EDSR(4, blocks=1, channels=4))
    ours: list[object] = ["--checkpoint", file]
    monkeypatch.setattr(referenced, "MOST_BYTES", 4 * (4 + 1.5 + 1) * 16 * 20)
    save(tmp_path / "large.png", noise(17, 20, 3))
    cases: list[tuple[list[object], str]] = [
        ([*ours, "--reference", tmp_path / "none.png"], "none.png: No such file"),
        ([*ours, "--reference", tmp_path / "broken.jpg"], "broken.jpg: not a picture"),
        ([*ours, "--reference", tmp_path / "nets"], "--reference must be one picture, and"),
        ([*ours, "--reference", tmp_path / "small.png"], "small.png must be at least 4 x 4 pixels, got 20 x 3"),
        ([*ours, "--reference", tmp_path / "large.png"], "has 20 x 17 pixels, and this network takes 0.0 million at"),
        ([*ours, "--reference", other, "--scale", 3], "file-ttsr was trained for scale 4 and has no other"),
        (["--checkpoint", tmp_path / "edsr.safetensors", "--reference", other], "file-edsr takes no reference; --ref"),
    ]
    for words, message in cases:
        done = course("upscale", source, "--out", out, *words)
        assert done.exit_code == 1, (words, done.output)
        assert message in one_line(done.stderr)
        assert not out.exists()
    done = course("upscale", source, "--out", other, *ours, "--reference", other, "--force")
    assert "the result would replace the reference" in one_line(done.stderr)
    (tmp_path / "album").mkdir()
    save(tmp_path / "album" / "other.png", noise(6, 7, 3))
    done = course("upscale", tmp_path / "album", "--out", tmp_path, *ours, "--reference", other, "--force")
    assert "the result would replace the reference" in one_line(done.stderr)
    assert other.read_bytes() == before
    done = course("upscale", source, "--out", out, "--scale", 2, "--reference", other)
    assert done.exit_code == 2
    assert "goes with --model ttsr-tiny, or a checkpoint of TTSR" in " ".join(done.stderr.split())


def test_slow_searches_are_told(net: TTSR, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the numbers of places by hand."""
    model = Referenced(net, torch.zeros(3, 18, 23))
    assert referenced.notes(model, (10, 12)) == []
    monkeypatch.setattr(referenced, "_SLOW", 120 * 4 * 5)
    (note,) = referenced.notes(model, (10, 12))
    assert note.startswith("120 places of the picture are searched for in 20 of the reference")
    assert len(list(networks.NetworkStrips(model, Samples(noise(10, 12, 3)), None, None))) > 0


# --- course evaluate reference --------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[evaluating.Scene]:
    """Three small scenes; the second has two references, of other sizes."""
    pictures = [datasets.from_uint8(noise(h, w, 3)) for h, w in ((26, 33), (24, 28), (40, 24), (20, 21), (30, 30))]
    found = [
        evaluating.Scene("a", pictures[0], {"right": pictures[0].flip(-1)}),
        evaluating.Scene("b", pictures[1], {"1": pictures[1].flip(-1), "2": pictures[3]}),
        evaluating.Scene("c", pictures[2], {"made": pictures[4]}),
    ]
    monkeypatch.setattr(evaluating, "scenes", lambda: (found, []))
    return found


def psnr(net: TTSR, scene: evaluating.Scene, reference: Tensor | None) -> float:
    lr, hr = metrics.pair(scene.picture, 4)
    with torch.no_grad():
        sr = net(lr.float(), ref=reference)
    return float(metrics.psnr(*metrics.compared(sr, hr, 4)))


def test_what_references_are_worth(net: TTSR, file: Path, few: list[evaluating.Scene], tmp_path: Path) -> None:
    """Oracle: `metrics` on what the network makes of whole pictures; the unrelated ones are those of the next two."""
    done = course("evaluate", "reference", "--checkpoint", file, "--out", tmp_path / "x.json")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["command"] == "course evaluate reference --checkpoint ttsr.safetensors"
    values = record["values"]["scenes"]
    assert list(values) == ["a", "b", "c"]
    for k, scene in enumerate(few):
        row = values[scene.name]
        height, width = scene.picture.shape[-2:]
        assert row["size"] == [height - height % 4, width - width % 4]
        assert row["bicubic"]["psnr"] == pytest.approx(
            metrics.score(scene.picture, metrics.enlarger("bicubic"), 4)[0], abs=1e-3
        )
        assert row["none"]["psnr"] == pytest.approx(psnr(net, scene, None), abs=0.01)
        assert list(row["related"]) == list(scene.references)
        for name, reference in scene.references.items():
            assert row["related"][name]["psnr"] == pytest.approx(psnr(net, scene, reference), abs=0.01)
            assert 0 < row["related"][name]["soft"] <= 1
        others = [few[(k + step) % 3] for step in (1, 2)]
        expected = [psnr(net, scene, next(iter(other.references.values()))) for other in others]
        assert row["unrelated"]["psnr"] == pytest.approx(sum(expected) / 2, abs=0.01)
        assert row["unrelated"]["worst"]["psnr"] == pytest.approx(min(expected), abs=0.01)
        assert row["unrelated"]["references"] == [other.name for other in others]
    assert "b 2" in done.stdout
    assert f"{values['c']['related']['made']['psnr']:.2f}" in done.stdout


def test_scenes_that_cannot_be_had_are_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: without a mirror the free pairs are left, a note says how to get the others, and --save wants them."""
    monkeypatch.delenv("COURSE_DATA", raising=False)
    found, missing = evaluating.scenes()
    assert [scene.name for scene in found] == ["motorcycle", "astronaut", "chelsea", "coffee"]
    assert [scene.picture.shape[-2:] for scene in found[1:]] == [(256, 256)] * 3
    assert ["COURSE_DATA is not set" in one for one in missing] == [True, True]
    assert "kitti2012_000000_10_L.png" in missing[0]
    done = course("evaluate", "reference", "--checkpoint", file, "--save")
    assert done.exit_code == 1
    assert "--save wants all scenes: the set stereo_samples is not on this machine" in one_line(done.stderr)
    for name in ("stereo_samples", "CUFED5_sample/test"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("kitti2012_000000_10", "flickr1024_0026"):
        for eye in "LR":
            save(tmp_path / "stereo_samples" / f"{name}_{eye}.png", noise(8, 9, 3))
    for k in range(6):
        save(tmp_path / "CUFED5_sample" / "test" / f"001_{k}.png", noise(8 + k, 9, 3))
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    found, missing = evaluating.scenes()
    assert missing == []
    assert [scene.name for scene in found[:4]] == [
        "motorcycle", "kitti2012_000000_10", "flickr1024_0026", "CUFED5 001_0"
    ]  # fmt: skip
    assert {name: picture.shape[-2] for name, picture in found[3].references.items()} == {
        f"001_{k}": 8 + k for k in range(1, 6)
    }


def test_only_ttsr_is_measured(tmp_path: Path) -> None:
    """Oracle: exit codes and reasons, before anything is measured."""
    checkpoints.save(tmp_path / "edsr.safetensors", EDSR(4, blocks=1, channels=4))
    done = course("evaluate", "reference", "--checkpoint", tmp_path / "edsr.safetensors")
    assert done.exit_code == 1
    assert "file-edsr takes no reference; a network of TTSR is measured here" in one_line(done.stderr)
    done = course("evaluate", "reference", "--model", "espcn-x3", "--checkpoint", tmp_path / "edsr.safetensors")
    assert done.exit_code == 2
    assert "give one of --model and --checkpoint" in " ".join(done.stderr.split())


@pytest.mark.gpu
def test_cuda_gives_the_same(net: TTSR, file: Path, tmp_path: Path) -> None:
    """Oracle: the CPU; features of noise have no near ties."""
    words = ["--checkpoint", file, "--reference", save(tmp_path / "other.png", noise(26, 35, 3)[::-1]), "--tile", 9]
    source = save(tmp_path / "in.png", noise(13, 17, 3))
    for device in ("cpu", "cuda"):
        done = course("upscale", source, *words, "--device", device, "--out", tmp_path / f"{device}.png")
        assert done.exit_code == 0, done.output
    came, expected = (datasets.read_samples(tmp_path / f"{device}.png").values for device in ("cuda", "cpu"))
    assert near(came, expected)
