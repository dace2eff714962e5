"""FSSD under the official names gives the official outputs. Oracle: what two of its codes computed, and manifests."""

from functools import cache

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from course_lib import official
from course_lib.detection.anchors import Level
from course_lib.detection.families.ssd.ssd import SSD
from tests.parity import fill

COUNTS = {
    "fssd300": (33_719_932, 8682),
    "fssd512": (35_229_764, 24_564),
    "fssd300_pytorch_port": (34_132_960, 11_620),
    "fssd512_pytorch_port": (35_527_542, 32_756),
}
"""Parameters that are trained (manifests), and boxes."""
NOISE = 1.2e-5  # float32 against float64 in the official code


@cache
def weights(name: str) -> dict[str, Tensor]:
    """The drawn weights, once; the number by which Caffe divides statistics, which is not drawn, is 1."""
    return fill.weights(fill.manifest(name)) | (
        {} if name.endswith("port") else {"fea_concat_bn.scale_factor": torch.ones(1)}
    )


@cache
def model(name: str) -> SSD:
    made = official.load(name, weights(name))
    assert isinstance(made, SSD)
    return made


@pytest.mark.parametrize("name", ["fssd300", "fssd300_pytorch_port"])
def test_outputs_are_the_official_ones(name: str) -> None:
    """Every 61st box, all of the last two maps, and the means over all."""
    x = torch.randn(1, 3, 300, 300, generator=torch.Generator().manual_seed(7))
    with safe_open(fill.HERE / "golden" / f"{name}.safetensors", "pt") as golden, torch.no_grad():
        body = model(name).body(x)
        maps = model(name).neck(body)
        came = {f"pyr{k}": new for k, new in enumerate(maps)}
        if name == "fssd300":
            came = {f"source.fea_concat_bn_ds_{2**k}": new for k, new in enumerate(maps)}
        else:
            came |= reduced(model(name), body)
        told = {key.removesuffix(".slice") for key in golden.keys() if key.endswith(".slice")}  # noqa: SIM118
        assert told == came.keys()
        for key, new in came.items():
            expected = {kind: golden.get_tensor(f"{key}.{kind}") for kind in ("slice", "mean_c")}
            torch.testing.assert_close(new[0, :8, :5, :5], expected["slice"], rtol=0, atol=1e-4)
            torch.testing.assert_close(new[0].mean((1, 2)), expected["mean_c"], rtol=0, atol=1e-4)
        outputs = model(name).heads(maps)
        for key, values in outputs.items():
            assert values.shape == (1, COUNTS[name][1], 21 if key == "logits" else 4)
            rows = values[0, golden.get_tensor("rows")]
            torch.testing.assert_close(rows, golden.get_tensor(key), rtol=0, atol=1e-4)
            mean = values[0].double().mean(0)
            torch.testing.assert_close(mean, golden.get_tensor(f"{key}_mean"), rtol=0, atol=NOISE)


def reduced(made: SSD, body: list[Tensor]) -> dict[str, Tensor]:
    """The port's maps at the finest size before and behind the normalisation, under the golden's names."""
    kept: dict[str, Tensor] = {}

    def keep(_: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept.update({f"ft{k}": part for k, part in enumerate(torch.split(inputs[0], 256, 1))}, fea_bn=output.clone())

    handle = made.neck.norm.register_forward_hook(keep)  # type: ignore[union-attr]
    made.neck(body)
    handle.remove()
    return kept


@pytest.mark.parametrize("name", COUNTS)
def test_names_shapes_and_count(name: str) -> None:
    """Oracle: the tensors and the count of the manifest; scale_factor is divided away."""
    manifest, chosen = fill.manifest(name), official.adapter(name)
    with torch.device("meta"):
        made = chosen.build()
    assert isinstance(made, SSD)
    own = {key: tuple(value.shape) for key, value in made.state_dict().items()}
    there = {chosen.rename(key): shape for key, shape, _ in fill.rows(manifest) if not key.endswith("scale_factor")}
    if not name.endswith("port"):
        assert own.pop("neck.norm.num_batches_tracked") == ()
    assert own == there
    parameters, boxes = COUNTS[name]
    told = manifest.get("params_total", manifest.get("params_learnable"))
    assert sum(p.numel() for p in made.parameters()) == parameters == told
    assert len(made.anchors()) == boxes


@pytest.mark.parametrize("name", ["fssd300", "fssd512"])
def test_configured_as_in_caffe(name: str) -> None:
    """Oracle: the arguments of the official scripts, in the manifests; `int` as Caffe's layer keeps sizes."""
    there = fill.manifest(name)
    with torch.device("meta"):
        made = official.adapter(name).build()
    assert isinstance(made, SSD)
    assert len(made.anchors()) == there["n_priors"]
    assert [[n, *size] for n, size in zip(made.neck.channels, made.map_sizes(), strict=True)] == [  # type: ignore[arg-type]
        source[1] for source in there["sources"]
    ]
    rows = zip(there["min_sizes"], there["max_sizes"], there["aspect_ratios"], strict=True)
    sizes = [Level(int(small), int(large), tuple(map(float, r))) for small, large, r in rows]
    assert there["steps"] == []  # the centres fill the picture evenly
    for level, size, cells in zip(made.levels, sizes, made.map_sizes(), strict=True):
        assert level.sizes() == size.sizes()
        torch.testing.assert_close(level.centres(cells, made.picture), size.centres(cells, made.picture))
    assert (made.clip, there["clip"]) == (False, False)


@pytest.mark.parametrize("name", ["fssd512", "fssd512_pytorch_port"])
def test_512_runs(name: str) -> None:
    """Oracle: the number of boxes; finite, and not the same everywhere. At half the size, for which seven maps do."""
    torch.manual_seed(0)
    made = official.adapter(name).build().eval()
    assert isinstance(made, SSD)
    with torch.no_grad():
        outputs = made(torch.randn(1, 3, 264, 264))
    assert outputs["logits"].shape == (1, len(made.anchors((264, 264))), 21)
    for values in outputs.values():
        assert values.isfinite().all()
        assert values.std() > 0.01


def test_caffe_divides_its_statistics() -> None:
    """Oracle: Caffe keeps sums and how many they are of; scaled alike they are the same network."""
    state = dict(weights("fssd300"))
    for key in ("running_mean", "running_var", "scale_factor"):
        state[f"fea_concat_bn.{key}"] = 8 * state[f"fea_concat_bn.{key}"]
    loaded = official.load("fssd300", state)
    for key, tensor in model("fssd300").state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    assert model("fssd300").neck.norm.weight is None  # type: ignore[union-attr]
    del state["fea_concat_bn.scale_factor"]
    with pytest.raises(official.Misfit, match=r"fea_concat_bn\.scale_factor"):
        official.load("fssd300", state)


@pytest.mark.parametrize("name", ["fssd300", "fssd300_pytorch_port"])
def test_the_fill_rule(name: str) -> None:
    """Oracle: sum and sum of sizes that the manifest tells of some tensors."""
    for key, (total, size) in fill.manifest(name)["fill_check"].items():
        values = weights(name)[key].double()
        assert float(values.sum()) == pytest.approx(total, abs=1e-5)
        assert float(values.abs().sum()) == pytest.approx(size, abs=1e-5)


def test_another_file_is_refused() -> None:
    """Without numbers; BatchNorm's count of batches, which older PyTorch did not have, may be absent."""
    name = "fssd300_pytorch_port"
    state = fill.shapes(name)
    with torch.device("meta"):
        for lost in ("ft_module.2.conv.weight", "pyramid_ext.5.conv.bias", "fea_bn.running_var", "base.33.bias"):
            with pytest.raises(official.Misfit, match="1 missing"):
                official.load(name, {key: value for key, value in state.items() if key != lost})
        for more in ("ft_module.3.conv.weight", "fea_bn.gamma", "vgg.0.weight", "extras.4.bias"):
            with pytest.raises(official.Misfit, match=f"1 unexpected: .*{more.split('.')[-1]}"):
                official.load(name, state | {more: torch.zeros(1)})
        official.load(name, {key: value for key, value in state.items() if "num_batches" not in key})
        with pytest.raises(official.Misfit, match=r"unexpected: fea_concat_bn_ds_64.*misshapen"):
            official.load("fssd300", fill.shapes("fssd512"))
        with pytest.raises(official.Misfit, match="missing"):
            official.load("fssd512", fill.shapes("fssd300"))
