"""Pictures made of tiles. Oracle of all: the network on the whole picture at once."""

import copy
import json
import subprocess
import sys
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from course_lib.super_resolution import tiles
from course_lib.super_resolution.edsr import EDSR
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.meta_sr import MetaSR
from course_lib.super_resolution.rdn import RDN
from course_lib.super_resolution.tiles import Tiles, tiled


def picture(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(1))


def louder(model: nn.Module) -> nn.Module:
    """The same network with larger weights, so that far pixels count."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model.eval()


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "edsr x2": louder(EDSR(2, blocks=2, channels=8)),
        "edsr x3 added": louder(EDSR(3, blocks=2, channels=8, added=True)),
        "espcn x3": louder(ESPCN(3, channels=3, added=True)),
        "rdn x2": louder(RDN(2, blocks=2, layers=3, growth=8, channels=8)),
        "liif": louder(LIIF("edsr-tiny", (16,))),
        "liif rdn": LIIF("rdn-tiny", (8,)).eval(),
        "liif added": louder(LIIF("edsr-tiny", (16,), added=True)),
        "metasr": MetaSR("edsr-tiny", 8, mean_shift=False, added=True).eval(),
    }


CASES: list[tuple[str, dict[str, Any]]] = [
    ("edsr x2", {}),
    ("edsr x3 added", {"scale": 3}),
    ("espcn x3", {"size": (90, 123)}),
    ("rdn x2", {}),
    ("liif rdn", {"scale": 2.5}),
    ("liif", {"scale": Fraction(17, 5)}),
    ("liif", {"size": (50, 97)}),
    ("liif", {"scale": 0.8}),
    ("liif added", {"scale": 2}),
    ("liif added", {"scale": 3.1415926}),
    ("metasr", {"scale": Fraction(17, 5)}),
    ("metasr", {"scale": 2}),
]


@pytest.mark.parametrize(("name", "how"), CASES, ids=lambda case: str(case))
@pytest.mark.parametrize("tile", [1000, 13])
@torch.no_grad()
def test_tiles_are_the_whole_picture(name: str, how: dict[str, Any], tile: int, models: dict[str, nn.Module]) -> None:
    """Inside and at the borders, to float rounding; tiles smaller than the overlap too."""
    model, lr = models[name], picture(30, 41)
    whole = model(lr, **how) if name.startswith(("liif", "metasr")) else model(lr)
    made = Tiles(model, lr, tile=tile, **how)
    assert made.exact
    strips = list(made)
    assert len(strips) == (1 if tile == 1000 else 3)
    result = torch.cat(strips, dim=-2)
    assert result.shape == whole.shape == (3, *made.size)
    torch.testing.assert_close(result, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("name", ["edsr x2", "rdn x2"])
@torch.no_grad()
def test_one_pixel_less_than_the_radius_is_not_enough(name: str, models: dict[str, nn.Module]) -> None:
    """The radius is the least overlap without seams; less is allowed, and known to be inexact."""
    model, lr = copy.deepcopy(models[name]).double(), picture(40, 40).double()  # rounding hides far pixels
    whole, radius = model(lr), int(model.radius)  # type: ignore[arg-type]
    errors = []
    for overlap in (0, radius - 1, radius):
        made = Tiles(model, lr, tile=10, overlap=overlap)
        assert made.exact == (overlap == radius)
        errors.append(float((torch.cat(list(made), dim=-2) - whole).abs().max()))
    assert errors[0] > errors[1] > 100 * errors[2]


def test_no_overlap_still_gives_the_decoder_what_it_reads(models: dict[str, nn.Module]) -> None:
    for name in ("liif", "liif added", "metasr"):
        made = Tiles(models[name], picture(30, 41), scale=2, tile=13, overlap=0)
        assert made.overlap == 2
        assert not made.exact
        assert torch.cat(list(made), dim=-2).isfinite().all()


@pytest.mark.parametrize("name", ["liif added", "metasr"])
@torch.no_grad()
def test_strips_of_a_tile_are_made_from_kept_features(
    name: str, models: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large result comes in many strips, none larger than asked; the encoder sees every tile once."""
    model, lr = models[name], picture(20, 30)
    whole = model(lr, scale=5)
    monkeypatch.setattr(tiles, "_STRIP", 4 * 3 * 150 * 7)
    monkeypatch.setattr(tiles, "_BLOCK", 6)
    seen: list[Any] = []
    finished: list[int] = []
    model.trunk.register_forward_hook(lambda *told: seen.append(told))  # type: ignore[union-attr]
    strips = list(Tiles(model, lr, scale=5, tile=15, done=finished.append))
    assert max(strip.shape[-2] for strip in strips) <= 7
    assert len(seen) == 4
    assert sum(finished) == 100 * 150
    torch.testing.assert_close(torch.cat(strips, dim=-2), whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


@torch.no_grad()
def test_batches_other_kinds_of_numbers_and_no_gradients(models: dict[str, nn.Module]) -> None:
    lr = picture(12, 14).expand(2, 1, 3, 12, 14).double()
    graphs: list[bool] = []
    for name in ("edsr x2", "liif added"):
        hook = register_module_forward_hook(lambda *told: graphs.append(torch.is_grad_enabled()))
        with torch.enable_grad():
            result = tiled(models[name], lr, scale=2, tile=7)
        hook.remove()
        assert graphs
        assert not any(graphs)  # a graph of one tile already takes many times its memory
        assert result.shape == (2, 1, 3, 24, 28)
        assert result.dtype == torch.float64
        assert not result.requires_grad
        whole = models[name](lr[0, 0].float(), **({"scale": 2} if name != "edsr x2" else {}))
        torch.testing.assert_close(result[1, 0].float(), whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_half_precision_is_near(models: dict[str, nn.Module]) -> None:
    """Oracle: float32; bfloat16 has eight binary digits."""
    for name in ("edsr x2", "liif"):
        whole = tiled(models[name], picture(12, 14), scale=2)
        near = tiled(models[name], picture(12, 14), scale=2, precision=torch.bfloat16)
        error = float((near - whole).abs().max() / whole.abs().max())
        assert 0 < error < 0.1


def test_what_does_not_fit_is_named(models: dict[str, nn.Module]) -> None:
    lr = picture(12, 14)
    with pytest.raises(ValueError, match=r"scale must be 2, the only one this network was trained for; got 3\.4"):
        Tiles(models["edsr x2"], lr, scale=3.4)
    with pytest.raises(ValueError, match=r"size must be 24 x 28, because.*scale 2 only; got 24 x 27"):
        Tiles(models["edsr x2"], lr, size=(24, 27))
    with pytest.raises(ValueError, match="tile must be at least 1, got 0"):
        Tiles(models["edsr x2"], lr, tile=0)
    with pytest.raises(ValueError, match="overlap must be at least 0, got -1"):
        Tiles(models["edsr x2"], lr, overlap=-1)
    with pytest.raises(ValueError, match="give exactly one of size and scale"):
        Tiles(models["liif"], lr)
    with pytest.raises(TypeError, match="lr must be floating point"):
        Tiles(models["liif"], lr.to(torch.uint8), scale=2)


def test_tiles_are_as_large_as_memory_allows() -> None:
    """Oracle: the last layer by hand: 4 results a pixel, 8 channels in, 3 out, 4 bytes each, three copies."""
    model = EDSR(2, blocks=1, channels=8)
    assert tiles._bytes_per_pixel(model, 3) == 3 * 4 * 4 * (8 + 3)
    small, large = (Tiles(model, torch.zeros(3, *size)) for size in ((60, 50), (4000, 3000)))
    assert len(small.bands) == len(small.parts) == 1
    assert small.cost == 1
    tall, wide = (-(-n // len(cuts)) for n, cuts in ((4000, large.bands), (3000, large.parts)))
    side = (tiles.MEMORY / (3 * 4 * 44)) ** 0.5
    assert wide + 2 * large.overlap <= side + 1
    assert tall + 2 * large.overlap <= side + 1
    # a tile is no smaller than what it overlaps by, whatever that takes
    deep = EDSR(2, blocks=40, channels=8)
    assert 4000 / len(Tiles(deep, torch.zeros(3, 4000, 3000)).bands) >= 0.5 * 84


PEAK = """
import json, sys, torch
from course_lib.super_resolution import tiles
from course_lib.super_resolution.edsr import EDSR
from course_lib.super_resolution.liif import LIIF
tiles.MEMORY, tiles._STRIP = 2**25, 2**22
def rss(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1024
out = []
for model in (EDSR(2, blocks=2), LIIF("edsr-tiny", (16,))):
    lr = torch.zeros(3, 300, 400)
    for strip in tiles.Tiles(model, lr[:, :40, :40], scale=2):  # what is asked for once
        pass
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before = rss("VmRSS")
    for strip in tiles.Tiles(model, lr, scale=2):
        pass
    out.append(rss("VmHWM") - before)
print(json.dumps(out))
"""


@pytest.mark.xfail(not sys.platform.startswith("linux"), reason="only Linux tells and resets its peak", run=False)
def test_memory_stays_in_its_bound() -> None:
    """Oracle: the system's peak: with 32 MiB allowed, not the 440 MiB of a layer of 256 channels on the whole."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert max(json.loads(done.stdout)) < 120


@pytest.mark.gpu
def test_on_cuda(models: dict[str, nn.Module]) -> None:
    """Oracle: the CPU; the picture stays there."""
    for name in ("edsr x2", "liif added"):
        here = tiled(models[name], picture(30, 41), scale=2, tile=13)
        there = tiled(models[name].to("cuda"), picture(30, 41), scale=2, tile=13)
        models[name].to("cpu")
        assert there.device.type == "cpu"
        torch.testing.assert_close(there, here, rtol=0, atol=1e-3 * float(here.abs().max()))
