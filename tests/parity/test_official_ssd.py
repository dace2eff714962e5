"""SSD300 under three codes' names gives the official outputs. Oracle: what ssd.pytorch computed (golden), manifests."""

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from course_lib import official
from course_lib.detection.anchors import Level
from course_lib.detection.families.ssd.l2norm import L2Norm
from course_lib.detection.families.ssd.ssd import SSD
from tests.parity import fill

NAMES = ("ssd300", "ssd300_lufficc", "caffe_ssd300")
COUNT = 26_285_486
NOISE = 1.2e-5  # float32 against float64 in the official code


@cache
def weights(name: str) -> dict[str, Tensor]:
    """The drawn weights, once."""
    return fill.weights(fill.manifest(name))


@cache
def model() -> SSD:
    """The network with the weights that the golden has."""
    made = official.load("ssd300", weights("ssd300"))
    assert isinstance(made, SSD)
    return made


def noise(seed: int) -> Tensor:
    """A golden's input."""
    return torch.randn(1, 3, 300, 300, generator=torch.Generator().manual_seed(seed))


def test_outputs_are_the_official_ones() -> None:
    """Every 61st box, all of the last two maps, and the means over all 8732."""
    with safe_open(fill.HERE / "golden" / "ssd300_net.safetensors", "pt") as golden, torch.no_grad():
        outputs = model()(noise(7))
        assert {key: tuple(value.shape) for key, value in outputs.items()} == {
            "logits": (1, 8732, 21),
            "offsets": (1, 8732, 4),
        }
        for key, values in outputs.items():
            rows = values[0, golden.get_tensor("rows")]
            torch.testing.assert_close(rows, golden.get_tensor(key), rtol=0, atol=1e-4)
            mean = values[0].double().mean(0)
            torch.testing.assert_close(mean, golden.get_tensor(f"{key}_mean"), rtol=0, atol=NOISE)


def test_maps_are_the_official_ones() -> None:
    names = ("conv4_3", "fc7", "extra1", "extra3", "extra5", "extra7")
    with safe_open(fill.HERE / "golden" / "ssd300_net.safetensors", "pt") as golden, torch.no_grad():
        maps = dict(zip(names, model().body(noise(7)), strict=True))
        maps["l2norm"] = model().neck(model().body(noise(8)))[0]  # as the golden was made
        for name, came in maps.items():
            expected = {kind: golden.get_tensor(f"{name}.{kind}") for kind in ("shape", "slice", "mean_c")}
            assert list(came.shape) == expected["shape"].tolist()
            torch.testing.assert_close(came[0, :8, :5, :5], expected["slice"], rtol=0, atol=1e-4)
            torch.testing.assert_close(came[0].mean((1, 2)), expected["mean_c"], rtol=0, atol=1e-4)


def test_l2norm_is_the_official_one() -> None:
    norm = L2Norm(512)
    norm.load_state_dict({"weight": weights("ssd300")["L2Norm.weight"]})
    with safe_open(fill.HERE / "golden" / "ssd300_net.safetensors", "pt") as golden, torch.no_grad():
        came = norm(golden.get_tensor("l2norm.in"))
        torch.testing.assert_close(came, golden.get_tensor("l2norm.out"), rtol=0, atol=1e-6)


def in_order(name: str) -> list[str]:
    """The tensors of a manifest in ssd.pytorch's order: body, L2Norm, extras, then the heads, boxes before classes.

    All three list the layers as the network runs; Caffe and lufficc have the L2Norm behind the extras.
    """
    names = [key for key, _, _ in fill.rows(fill.manifest(name))]
    heads = [key for key in names if any(word in key for word in ("mbox", "box_head", "loc.", "conf."))]
    boxes = [key for key in heads if any(word in key for word in ("mbox_loc", "reg_", "loc."))]
    norm = [key for key in names if key.endswith(("orm.weight",))]
    rest = [key for key in names if key not in {*heads, *norm}]
    return [*rest[:30], *norm, *rest[30:], *boxes, *(key for key in heads if key not in boxes)]


@pytest.mark.parametrize("name", NAMES[1:])
def test_other_names_make_the_same_network(name: str) -> None:
    """Oracle: the order of the layers in the manifests, by which the same tensors get the other names."""
    ours, theirs = in_order("ssd300"), in_order(name)
    assert len(ours) == len(set(ours)) == len(theirs) == len(set(theirs)) == 71
    loaded = official.load(name, {new: weights("ssd300")[old] for old, new in zip(ours, theirs, strict=True)})
    for key, tensor in model().state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_count(name: str) -> None:
    """Oracle: the tensors and the count of the manifest."""
    manifest, chosen = fill.manifest(name), official.adapter(name)
    with torch.device("meta"):
        made = chosen.build()
    own = {key: tuple(value.shape) for key, value in made.state_dict().items()}
    assert own == {chosen.rename(key): shape for key, shape, _ in fill.rows(manifest)}
    told = manifest.get("params_total", manifest.get("params_learnable"))
    assert sum(p.numel() for p in made.parameters()) == COUNT == told


def test_anchors_are_configured_as_in_caffe() -> None:
    """Oracle: the arguments of the official script, in the manifest."""
    there = fill.manifest("caffe_ssd300")
    with torch.device("meta"):
        made = official.adapter("caffe_ssd300").build()
    assert isinstance(made, SSD)
    rows = zip(there["min_sizes"], there["max_sizes"], there["aspect_ratios"], there["steps"], strict=True)
    assert made.levels == tuple(Level(small, large, tuple(map(float, r)), step) for small, large, r, step in rows)
    assert [[n, *size] for n, size in zip(made.neck.channels, made.map_sizes(), strict=True)] == [  # type: ignore[arg-type]
        source[1] for source in there["sources"]
    ]
    assert len(made.anchors()) == there["n_priors"]
    assert made.clip is there["clip"] is False
    with torch.device("meta"):
        port = official.adapter("ssd300").build()
    assert isinstance(port, SSD)
    assert (port.levels, port.clip) == (made.levels, "centre_size")
    assert (made.normalisation.bgr, port.normalisation.bgr) == (True, False)


def test_the_fill_rule() -> None:
    """Oracle: sum and sum of sizes that the manifest tells of some tensors."""
    for key, (total, size) in fill.manifest("ssd300")["fill_check"].items():
        values = weights("ssd300")[key].double()
        assert float(values.sum()) == pytest.approx(total, abs=1e-5)
        assert float(values.abs().sum()) == pytest.approx(size, abs=1e-5)


def test_a_released_file(tmp_path: Path) -> None:
    """ssd.pytorch releases a bare state dict; one that several GPUs trained has "module." before every name."""
    kept = {key: torch.ones(1).expand(shape) for key, shape, _ in fill.rows(fill.manifest("ssd300"))}  # a small file
    torch.save({f"module.{key}": value for key, value in kept.items()}, tmp_path / "ssd.pth")
    assert official.recognise(tmp_path / "ssd.pth") == "ssd300"
    assert bool((official.load("ssd300", tmp_path / "ssd.pth").state_dict()["body.fc6.weight"] == 1).all())
    assert official.recognise({"model": fill.shapes("ssd300_lufficc")}) == "ssd300_lufficc"


def test_another_file_is_refused() -> None:
    """Without numbers."""
    state = fill.shapes("ssd300")
    with torch.device("meta"):
        for lost in ("L2Norm.weight", "vgg.28.bias", "extras.7.weight", "conf.5.bias"):
            with pytest.raises(official.Misfit, match="1 missing"):
                official.load("ssd300", {key: value for key, value in state.items() if key != lost})
        for more in ("vgg.35.weight", "extras.8.weight", "loc.6.bias", "l2_norm.weight", "backbone.vgg.0.weight"):
            with pytest.raises(official.Misfit, match=f"1 unexpected: {more}"):
                official.load("ssd300", state | {more: torch.zeros(1)})
        other = {"conf.0.weight": torch.zeros(324, 512, 3, 3), "conf.0.bias": torch.zeros(324)}
        with pytest.raises(official.Misfit, match=r"2 misshapen: conf\.0"):
            official.load("ssd300", state | other)
        with pytest.raises(official.Misfit, match="71 missing"):
            official.load("caffe_ssd300", state)
