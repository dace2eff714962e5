"""RDN under the official names gives the official outputs. Oracle: what the widespread port computed (goldens)."""

from functools import cache, partial

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_lib import official
from course_lib.super_resolution.rdn import RDN
from tests.parity import fill

COUNTS = {"rdn_B_x2": 22_123_395, "rdn_B_x3": 22_308_035, "rdn_B_x4": 22_271_107}


@cache
def weights(name: str) -> dict[str, Tensor]:
    """The drawn weights of 22 million numbers, once."""
    return fill.weights(fill.manifest(name))


def keep(kept: dict[str, Tensor], name: str, _: nn.Module, __: object, output: Tensor) -> None:
    kept[name] = output.clone()


@pytest.mark.parametrize("gradients", [False, True])
def test_outputs_are_the_official_ones(gradients: bool) -> None:
    """Tolerance: ten times what float32 and float64 differ by in the official code. Both ways to join channels."""
    manifest = fill.manifest("rdn_B_x2")
    model = official.load("rdn_B_x2", weights("rdn_B_x2"))
    assert isinstance(model, RDN)
    kept: dict[str, Tensor] = {}
    hooks = {"rdb0_out": model.encoder.body[0], "rdb15_out": model.encoder.body[15]}
    for name, module in (hooks | {"gff_out_before_global_skip": model.encoder.fusion2}).items():
        module.register_forward_hook(partial(keep, kept, name))
    lr = fill.picture((1, 3, 16, 20), seed=7) / 255  # the network multiplies by 255 what the golden's input is
    path = fill.HERE / "golden" / "rdn_B_x2.safetensors"
    with safe_open(path, "pt") as golden, torch.set_grad_enabled(gradients):
        assert golden.metadata()["input"] == "rnd((1,3,16,20),7)"
        tolerance = 10 * manifest["golden"]["f32_vs_f64_maxabs"]
        torch.testing.assert_close(255 * model(lr), golden.get_tensor("sr"), rtol=0, atol=tolerance)
        for name, output in kept.items():
            torch.testing.assert_close(output[:, :8], golden.get_tensor(name), rtol=0, atol=tolerance)
    assert len(kept) == 3


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_scale_loads_strictly(name: str, count: int) -> None:
    """Oracle: the tensors and the count of the manifest, which are those of the port. They are all that ours has."""
    manifest = fill.manifest(name)
    shapes = {key: shape for key, shape, _ in fill.rows(manifest)}
    with torch.device("meta"):
        model = official.adapter(name).build()
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert own == {official.adapter(name).rename(key): shape for key, shape in shapes.items()}
    assert len(own) == len(shapes) == manifest["n_tensors"]
    assert sum(p.numel() for p in model.parameters()) == count == manifest["n_params_total"]


@pytest.mark.parametrize("name", COUNTS)
def test_every_scale_is_configured_as_there(name: str) -> None:
    """Oracle: the port's own default, pictures from 0 to 255, which no tensor tells."""
    with torch.device("meta"):
        model = official.adapter(name).build()
    assert isinstance(model, RDN)
    assert [model.scale] == fill.manifest(name)["args"]["scale"]
    assert (model.blocks, model.layers, model.growth, model.channels) == (16, 8, 64, 64)  # its configuration "B"
    assert fill.manifest(name)["args"]["RDNconfig"] == "B"
    assert (model.data_range, model.added) == (255, False)


@pytest.mark.parametrize("name", ["rdn_B_x3", "rdn_B_x4"])
def test_every_scale_enlarges(name: str) -> None:
    """Oracle: the shape; finite, and not the same everywhere."""
    model = official.load(name, fill.weights(fill.manifest(name)))
    assert not model.training
    with torch.no_grad():
        sr = model(fill.picture((2, 3, 4, 3), seed=1))
    scale = int(name[-1])
    assert sr.shape == (2, 3, 4 * scale, 3 * scale)
    assert sr.isfinite().all()
    assert sr.std() > 0.01


def test_the_fill_rule() -> None:
    """Oracle: sum and first values that the manifest tells of some tensors."""
    manifest = fill.manifest("rdn_B_x2")
    assert manifest["fill_check"]
    for key, expected in manifest["fill_check"].items():
        values = weights("rdn_B_x2")[key].to(torch.float64).flatten()
        assert float(values.sum()) == pytest.approx(expected["sum"], abs=1e-5)
        assert values[:3].tolist() == pytest.approx(expected["first3"], abs=1e-7)


def test_another_file_is_refused() -> None:
    """A file of x2 has no second stage; its last convolution is not taken for one."""
    state = weights("rdn_B_x2")
    with pytest.raises(official.Misfit, match=r"2 missing: .*last.*UPNet\.2\.weight is \(3, 64, 3, 3\)"):
        official.load("rdn_B_x4", state)
    with pytest.raises(official.Misfit, match=r"2 misshapen: UPNet\.0\.weight"):
        official.load("rdn_B_x3", state)
    with pytest.raises(official.Misfit, match="1 missing"):
        official.load("rdn_B_x2", {key: value for key, value in state.items() if key != "GFF.0.bias"})
    for more in ("RDBs.16.LFF.bias", "RDBs.0.convs.8.conv.0.bias", "UPNet.4.bias", "sub_mean.bias"):
        with pytest.raises(official.Misfit, match=f"1 unexpected: {more}"):
            official.load("rdn_B_x2", state | {more: torch.zeros(1)})
