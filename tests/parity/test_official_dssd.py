"""DSSD and SSD321 under the official names give the official outputs. Oracle: what the authors' script computed."""

from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_lib import official
from course_lib.detection.boxes import to_xyxy
from course_lib.detection.families.ssd.ssd import SSD
from course_lib.official import caffe
from tests.parity import fill

COUNTS = {"ssd321_resnet101": 116_526_320, "dssd321": 172_380_912, "dssd513_coco": 221_984_472}
IN_BODY = r"^(conv1|bn_conv1|scale_conv1|(res|bn|scale)\d\w*branch\w+)\."


def weights(manifest: dict[str, Any]) -> dict[str, Tensor]:
    """The drawn weights; sums of statistics are over one batch."""
    state = fill.weights(manifest)
    factors = [key.replace("running_mean", "scale_factor") for key in state if key.endswith("running_mean")]
    return state | {key: torch.ones(1) for key in factors}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """DSSD321 with the drawn weights, what it gave, the heads' maps and the body's; its body's weights stay."""
    manifest = fill.manifest("dssd321")
    state = weights(manifest)
    checked = {key: state[key].double() for key in manifest["fill_check"]}
    model = official.load("dssd321", state)
    del state
    assert isinstance(model, SSD)
    kept: dict[str, Any] = {"model": model, "checked": checked, "manifest": manifest}
    model.body.register_forward_hook(lambda _, __, maps: kept.update(body=maps))
    model.heads.register_forward_pre_hook(lambda _, inputs: kept.update(maps=inputs[0]))
    with torch.no_grad():
        kept["outputs"] = model(torch.randn(1, 3, 321, 321, generator=torch.Generator().manual_seed(7)))
    return kept


def test_outputs_are_the_official_ones(made: dict[str, Any]) -> None:
    """Tolerance: of the values' standard deviation; in float64 our outputs differ by 5e-5 of it from float32's."""
    sources = [source for source, _, _ in made["manifest"]["sources"]]
    outputs = made["outputs"]
    came = {
        "conf_every_11th": outputs["logits"].flatten()[::11],
        "loc_every_3rd": outputs["offsets"].flatten()[::3],
        "priors_xyxy_every_97th": to_xyxy(made["model"].anchors())[::97],
    }
    for source, x in zip(sources, made["maps"], strict=True):
        came |= {f"source.{source}.mean_c": x[0].mean((1, 2)), f"source.{source}.slice": x[0, :8, :5, :5]}
    with safe_open(fill.HERE / "golden" / "dssd321.safetensors", "pt") as golden:
        assert golden.metadata()["input"] == "randn(1, 3, 321, 321), seed 7"
        assert came.keys() == set(golden.keys())
        for name, output in came.items():
            expected = golden.get_tensor(name)
            assert output.shape == expected.shape
            error = float((output - expected).abs().max() / expected.std())
            assert error <= 2e-4, (name, error)


def test_ssd321_runs_on_the_same_body(made: dict[str, Any]) -> None:
    """SSD321 with its own drawn neck and heads on the maps of that body. Oracle: shapes; finite, and not all alike."""
    manifest = fill.manifest("ssd321_resnet101")
    manifest["fill"]["left_as_is"].append(IN_BODY)
    state = caffe.fold(weights(manifest))
    chosen = official.adapter("ssd321_resnet101")
    with torch.device("meta"):
        model = chosen.build().eval()
    assert isinstance(model, SSD)
    missing, unexpected = model.load_state_dict(
        {chosen.rename(key): value for key, value in state.items()}, strict=False, assign=True
    )
    assert all(name.startswith("body.") or name.endswith("num_batches_tracked") for name in missing)
    assert not unexpected
    with torch.no_grad():
        outputs = model.heads(model.neck(made["body"]))
    assert (outputs["logits"].shape, outputs["offsets"].shape) == ((1, 17080, 21), (1, 17080, 4))
    for output in outputs.values():
        assert output.isfinite().all()
        assert 0.1 < output.std() < 100


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_checkpoint_loads_strictly(name: str, count: int) -> None:
    """Oracle: the manifest's tensors, count of parameters and of statistics, maps and anchors."""
    manifest, chosen = fill.manifest(name), official.adapter(name)
    with torch.device("meta"):
        model = chosen.build()
        state = caffe.fold({key: torch.empty(shape) for key, shape, _ in fill.rows(manifest)})
    assert isinstance(model, SSD)
    renamed = {chosen.rename(key): value for key, value in state.items()}
    assert len(renamed) == len(state)
    official.fit(model, renamed, name, may_be_absent=chosen.left_as_initialised)
    own = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert own.keys() == renamed.keys()
    assert sum(p.numel() for p in model.parameters()) == count == manifest["params_learnable"]
    norms = sum(".scale_factor" in key for key, _, _ in fill.rows(manifest))
    assert sum(b.numel() for key, b in own.items() if "running_" in key) + norms == manifest["bn_statistics"]
    assert model.map_sizes() == [tuple(shape[1:]) for _, shape, _ in manifest["sources"]]
    boxes = [level.boxes * h * w for level, (h, w) in zip(model.levels, model.map_sizes(), strict=True)]
    assert boxes == [count for _, _, count in manifest["sources"]]
    assert len(model.anchors(device="cpu")) == manifest["n_priors"] == sum(boxes)


@pytest.mark.parametrize("name", COUNTS)
def test_every_checkpoint_is_configured_as_there(name: str) -> None:
    """Oracle: the manifest's sizes, steps and starts (cut to whole pixels, and meant as pixels but taken as steps);
    epsilon and kernels of the released scripts, which no tensor tells."""
    there = fill.manifest(name)
    with torch.device("meta"):
        model = official.adapter(name).build()
    assert isinstance(model, SSD)
    levels = model.levels
    assert [level.small for level in levels] == [int(size) for size in there["min_sizes"]]
    assert [level.large for level in levels] == [int(size) for size in there["max_sizes"]]
    assert [level.step for level in levels] == there["steps"]
    assert [level.offset for level in levels] == there["starts"]
    assert [list(level.ratios) for level in levels] == there["aspect_ratios"]
    assert {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}
    kernels = [head.kernel_size[0] for head in model.heads.logits]  # type: ignore[index]
    assert kernels == [5, 5] + [3] * (len(levels) - 2)
    assert (model.clip, model.picture) == (False, (321, 321) if "321" in name else (513, 513))


def test_the_fill_rule(made: dict[str, Any]) -> None:
    """Oracle: sums, and sums of absolute values, that the manifest tells of some tensors."""
    assert made["checked"]
    for key, expected in made["manifest"]["fill_check"].items():
        values = made["checked"][key]
        assert [float(values.sum()), float(values.abs().sum())] == pytest.approx(expected, abs=1e-5)


def test_statistics_are_divided_by_their_factor() -> None:
    """Oracle: Caffe's rule by hand: sums over 4 batches; a factor of 0 means that none was seen."""
    state = {"a_bn.running_mean": torch.tensor([8.0, 2.0]), "a_bn.running_var": torch.tensor([4.0, 1.0])}
    state |= {"b_bn.running_mean": torch.ones(1), "b_bn.running_var": torch.ones(1), "c.weight": torch.ones(3)}
    factors = {"a_bn.scale_factor": torch.tensor([4.0]), "b_bn.scale_factor": torch.zeros(1)}
    folded = {key: value.tolist() for key, value in caffe.fold(state | factors).items()}
    assert folded == {
        "a_bn.running_mean": [2.0, 0.5],
        "a_bn.running_var": [1.0, 0.25],
        "b_bn.running_mean": [0.0],
        "b_bn.running_var": [0.0],
        "c.weight": [1.0, 1.0, 1.0],
    }
    alone = {"lonely.scale_factor": torch.ones(1)}
    assert caffe.fold(alone) == alone
    for wrong in ({}, {"a_bn.scale_factor": torch.ones(2)}, {"a_bn.scale_factor": torch.tensor(1.0)}):
        with pytest.raises(official.Misfit, match=r"missing or not \(1,\): a_bn\.scale_factor$"):
            caffe.fold({key: value for key, value in (state | factors).items() if key != "a_bn.scale_factor"} | wrong)


def test_names_of_layers() -> None:
    """Oracle: names in the released networks."""
    pairs = {"bn_conv1": "conv1", "scale2a_branch1": "res2a_branch1", "bnres9_relu_inter256_branch2c": None}
    pairs |= {"deconv_8_pre_bn": "deconv_8_pre", "deconv_8_pre_scale": "deconv_8_pre", "conv1": None, "deconv_8": None}
    pairs["bnres9_relu_inter256_branch2c"] = "resres9_relu_inter256_branch2c"
    assert {layer: caffe.normalised(layer) for layer in pairs} == pairs
    sources = ("conv4_3_norm", "fc7")
    heads = {"fc7_mbox_loc": ("offsets", 1), "conv4_3_norm_mbox_confnew": ("logits", 0), "fc6_mbox_loc": None}
    assert {layer: caffe.head(layer, sources) for layer in (*heads, "fc7")} == heads | {"fc7": None}


def test_another_file_is_refused() -> None:
    """Oracle: the names; tensors on the meta device, so that no number is compared."""
    chosen = official.adapter("dssd321")
    with torch.device("meta"):
        model = chosen.build()
        state = caffe.fold({key: torch.empty(shape) for key, shape, _ in fill.rows(fill.manifest("dssd321"))})
        another = torch.empty(1)

    def fit(state: dict[str, Tensor]) -> None:
        renamed = {chosen.rename(key): value for key, value in state.items()}
        official.fit(model, renamed, "dssd321", may_be_absent=chosen.left_as_initialised)

    for lost in ("deconv_5.bias", "resres9_relu_inter256_mbox_locnew.weight", "scale4b22_branch2c.bias"):
        with pytest.raises(official.Misfit, match=f"of dssd321: 1 missing: {chosen.rename(lost)}$"):
            fit({key: value for key, value in state.items() if key != lost})
    for more in ("res10_branch1.weight", "res2a_branch3.weight", "deconv_8.running_mean_", "resres9_mbox_loc.bias"):
        with pytest.raises(official.Misfit, match=f"of dssd321: 1 unexpected: {chosen.rename(more)}$"):
            fit(state | {more: another})
    with pytest.raises(official.Misfit, match=r"these are not Caffe's weights: missing .*: bn_conv1\.scale_factor$"):
        official.load("dssd321", {"bn_conv1.running_mean": torch.zeros(64), "bn_conv1.running_var": torch.ones(64)})
