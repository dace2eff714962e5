"""DSOD300 under the official names gives the official outputs. Oracle: the authors' network definition (golden)."""

from functools import cache

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_lib import official
from course_lib.detection.boxes import to_xyxy
from course_lib.detection.families.ssd.dsod import DenseBody
from course_lib.detection.families.ssd.ssd import SSD
from course_lib.official import caffe, dsod
from course_lib.official.dsod import SOURCES, rename
from tests.parity import fill

NOISE = 6e-6  # by which the golden's float32 differs from float64


@cache
def weights() -> dict[str, Tensor]:
    """The drawn weights, once; Caffe's sums are of one batch."""
    state = fill.weights(fill.manifest("dsod300"))
    return state | {
        name.replace("running_mean", "scale_factor"): torch.ones(1) for name in state if name.endswith("running_mean")
    }


def test_outputs_and_maps_are_the_official_ones() -> None:
    """Every 61st box, all of the last two maps, the means over all 8744, and what the heads read of all maps."""
    model = official.load("dsod300", weights())
    assert isinstance(model, SSD)
    assert not model.training
    images = torch.randn(1, 3, 300, 300, generator=torch.Generator().manual_seed(7))
    with safe_open(fill.HERE / "golden" / "dsod300.safetensors", "pt") as golden, torch.no_grad():
        assert golden.metadata()["input"] == "randn((1,3,300,300),7)"
        maps = model.neck(model.body(images))
        outputs = model.heads(maps)
        rows = golden.get_tensor("rows")
        assert {key: tuple(value.shape) for key, value in outputs.items()} == {
            "logits": (1, 8744, 21),
            "offsets": (1, 8744, 4),
        }
        for key, values in outputs.items():
            torch.testing.assert_close(values[0, rows], golden.get_tensor(key), rtol=0, atol=10 * NOISE)
            mean = values[0].double().mean(0)
            torch.testing.assert_close(mean, golden.get_tensor(f"{key}_mean"), rtol=0, atol=NOISE)
        for name, came in zip(SOURCES, maps, strict=True):
            part = golden.get_tensor(f"source.{name}.slice")
            own = came[0, :8, : part.shape[1], : part.shape[2]]
            torch.testing.assert_close(own, part, rtol=0, atol=10 * NOISE)
            mean = golden.get_tensor(f"source.{name}.mean_c")
            torch.testing.assert_close(came[0].mean((1, 2)), mean, rtol=0, atol=10 * NOISE)
        boxes = to_xyxy(model.anchors())[rows]
        torch.testing.assert_close(boxes, golden.get_tensor("priors_xyxy"), rtol=0, atol=5e-7)


def test_it_is_the_released_network() -> None:
    """Oracle: names, shapes and counts of the manifest, the settings of the script."""
    manifest = fill.manifest("dsod300")
    with torch.device("meta"):
        model = official.adapter("dsod300").build()
    assert isinstance(model, SSD)
    assert isinstance(model.body, DenseBody)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: shape for name, shape, _ in fill.rows(manifest)}
    factors = [name for name in theirs if name.endswith(".scale_factor")]
    batches = [name for name in own if name.endswith(".num_batches_tracked")]
    renamed = {rename(name): shape for name, shape in theirs.items() if name not in factors}
    assert renamed == {name: shape for name, shape in own.items() if name not in batches}
    assert len(renamed) + len(factors) == len(theirs)
    assert sum(p.numel() for p in model.parameters()) == 14_715_804 == manifest["params_learnable"]
    kept = sum(own_shape[0] for name, own_shape in own.items() if "running" in name)
    assert kept + len(factors) == 80_024 == manifest["bn_statistics"]
    assert model.map_sizes() == [tuple(shape[1:]) for _, shape, _ in manifest["sources"]]
    assert [shape[0] for _, shape, _ in manifest["sources"]] == list(model.body.channels)
    assert [h * w * level.boxes for (h, w), level in zip(model.map_sizes(), model.levels, strict=True)] == [
        count for *_, count in manifest["sources"]
    ]
    assert [level.small for level in model.levels] == manifest["min_sizes"]
    assert [level.large for level in model.levels] == manifest["max_sizes"]
    assert [level.step for level in model.levels] == manifest["steps"]
    assert [list(level.ratios) for level in model.levels] == manifest["aspect_ratios"]
    assert len(model.anchors()) == 8744 == manifest["n_priors"]
    assert model.clip is False is manifest["clip"]


def test_norms_are_configured_as_there() -> None:
    """Oracle: Caffe's own epsilon in the body, the one that the script gives in the heads, where scales start."""
    model = official.adapter("dsod300").build()
    for part, epsilon, many in ((model.body, 1e-5, 80), (model.heads, 1e-3, 12)):
        assert isinstance(part, nn.Module)
        norms = [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
        assert [norm.eps for norm in norms] == [epsilon] * many
    scales = [parameter.detach() for parameter in model.neck.parameters()]  # type: ignore[union-attr]
    starts = fill.manifest("dsod300")["normalizations"]
    widths = (800, 512, 512, 256, 256, 256)
    assert all(
        torch.equal(x, torch.full((n,), float(start))) for x, n, start in zip(scales, widths, starts, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("Convolution1.weight", "body.trunk.0.0.weight"),
        ("Scale1.bias", "body.trunk.0.1.bias"),
        ("First.weight", "body.trunk.2.1.0.2.weight"),
        ("Convolution33.weight", "body.steps.0.halves.0.1.0.layers.0.0.2.weight"),
        ("BatchNorm80.running_var", "body.steps.4.halves.1.1.0.running_var"),
        ("Sixth_norm.weight", "neck.norms.5.weight"),
        ("Third_norm_mbox_conf.weight", "heads.logits.2.0.weight"),
        ("Third_norm_mbox_loc_bn.running_mean", "heads.offsets.2.1.running_mean"),
        ("Third_norm_mbox_loc_scale.weight", "heads.offsets.2.1.weight"),
        ("Convolution80.weight", "Convolution80.weight"),
        ("Seventh_norm.weight", "Seventh_norm.weight"),
    ],
)
def test_names(name: str, ours: str) -> None:
    """Oracle: the order of the layers in the authors' definition. What is not of it stays and is refused."""
    assert rename(name) == ours


def test_the_fill_rule() -> None:
    """Oracle: sums that the manifest tells of some tensors."""
    for key, (total, size) in fill.manifest("dsod300")["fill_check"].items():
        values = weights()[key].double()
        assert [float(values.sum()), float(values.abs().sum())] == pytest.approx([total, size], abs=1e-5)


def test_sums_of_several_batches_and_other_files() -> None:
    """Oracle: Caffe divides its sums by their factor. A lost factor or tensor, and one too many, is named."""
    state = weights()
    changed = {name: 5 * value if "running" in name else value for name, value in state.items()}
    changed |= {name: 5 * torch.ones(1) for name in state if name.endswith("scale_factor")}
    one, five = (caffe.fold(given) for given in (state, changed))
    assert one.keys() == five.keys()
    assert all(torch.allclose(one[name], five[name]) for name in one if "running" in name)
    for lost, message in (
        ("BatchNorm7.scale_factor", r"missing or not \(1,\): BatchNorm7\.scale_factor"),
        ("First.weight", f"1 missing: {rename('First.weight')}"),
        ("Second_norm_mbox_conf_bn.running_var", r"1 missing: heads\.logits\.1\.1\.running_var"),
    ):
        with pytest.raises(official.Misfit, match=message):
            official.load("dsod300", {name: value for name, value in state.items() if name != lost})
    with pytest.raises(official.Misfit, match=r"1 unexpected: Convolution80\.weight"):
        official.load("dsod300", state | {"Convolution80.weight": torch.zeros(1)})
    assert dsod.MODELS.keys() == dsod.RENAMES.keys()
