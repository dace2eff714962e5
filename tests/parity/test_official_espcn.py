"""ESPCN under the official names gives the official outputs. Oracle: what the port's own code computed (goldens)."""

import pytest
import torch
from safetensors import safe_open

from course_lib import official
from course_lib.super_resolution.espcn import ESPCN
from tests.parity import fill

COUNTS = {"espcn_x2": 21_284, "espcn_x3": 22_729, "espcn_x4": 24_752, "espcn_x8": 38_624}


@pytest.mark.parametrize("name", ["espcn_x2", "espcn_x3"])
def test_outputs_are_the_official_ones(name: str) -> None:
    """Tolerance: ten times what float32 and float64 differ by in the official code."""
    manifest = fill.manifest(name)
    state = fill.weights(manifest)
    model = official.load(name, state)
    assert isinstance(model, ESPCN)
    port = ESPCN(model.scale, output="sigmoid")
    port.load_state_dict(state)
    lr = fill.picture((1, 1, 20, 26), seed=7)
    with safe_open(fill.HERE / "golden" / f"{name}.safetensors", "pt") as golden, torch.no_grad():
        assert golden.metadata()["input"] == "rnd((1,1,20,26),7)"
        noise = manifest["golden"]["f32_vs_f64_maxabs"]
        torch.testing.assert_close(model.subpixels(lr), golden.get_tensor("conv3_out"), rtol=0, atol=10 * noise)
        torch.testing.assert_close(port(lr), golden.get_tensor("sr"), rtol=0, atol=10 * noise)
        # the paper's network is the port's without its sigmoid
        torch.testing.assert_close(model(lr).sigmoid(), golden.get_tensor("sr"), rtol=0, atol=10 * noise)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_scale_loads_strictly(name: str, count: int) -> None:
    """Oracle: the tensors and the parameter count of the manifest, also printed in the sheets of the paper's forms."""
    manifest = fill.manifest(name)
    model = official.load(name, fill.weights(manifest))
    assert not model.training
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == {
        key: shape for key, shape, _ in fill.rows(manifest)
    }
    assert sum(p.numel() for p in model.parameters()) == count == manifest["n_params_total"]
    with torch.no_grad():
        sr = model(fill.picture((2, 1, 7, 5), seed=1))
    scale = model.scale
    assert sr.shape == (2, 1, 7 * scale, 5 * scale)
    assert sr.isfinite().all()


@pytest.mark.parametrize("name", COUNTS)
def test_the_fill_rule(name: str) -> None:
    """Oracle: sum and first values that the manifest tells of some tensors: a wrong fill is not a wrong model."""
    manifest = fill.manifest(name)
    state = fill.weights(manifest)
    places = {key: k for k, key in enumerate(sorted(key for key, _, _ in fill.rows(manifest)))}
    assert manifest["fill_check"]
    for key, expected in manifest["fill_check"].items():
        values = state[key].to(torch.float64).flatten()
        assert places[key] == expected["k"]
        assert float(values.sum()) == pytest.approx(expected["sum"], abs=1e-5)
        assert values[:3].tolist() == pytest.approx(expected["first3"], abs=1e-7)


def test_all_rules_of_the_fill() -> None:
    """Oracle: the rule written out for one tensor of each kind, on a made-up manifest."""
    tensors = [
        ["a.weight", [4, 3, 2], "float32"],
        ["bn.weight", [4], "float32"],
        ["bn.running_mean", [4], "float32"],
        ["bn.running_var", [4], "float32"],
        ["bn.num_batches_tracked", [], "int64"],
        ["l2.scale", [4], "float32"],
        ["norm.weight", [4], "float32"],
        ["pos", [4, 4], "float32"],
        ["same.weight", [2, 2], "float32"],
        ["table", [3], "float32"],
        ["z.bias", [4], "float32"],
        ["also.weight", [2, 2], "float32"],
        ["fixed", [2], "float32"],
    ]
    manifest = {
        "tensors": tensors,
        "fill": {"gain": "sqrt(2)", "constants": {r"^l2\.": 20.0}, "scales": {"^pos$": 0.5}, "left_as_is": ["^table$"]},
        "aliases_of_earlier_name": {"same.weight": "also.weight"},
        "override": {"fixed": 3.0},
    }
    names = sorted(row[0] for row in tensors)

    def noise(name: str, *shape: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1000 + names.index(name))
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    expected = {
        "a.weight": noise("a.weight", 4, 3, 2) * (2**0.5 / 6**0.5),
        "bn.weight": 1 + 0.02 * noise("bn.weight", 4),
        "bn.running_mean": 0.02 * noise("bn.running_mean", 4),
        "bn.running_var": 1 + 0.02 * noise("bn.running_var", 4).abs(),
        "l2.scale": 20 * (1 + 0.02 * noise("l2.scale", 4)),
        "norm.weight": 1 + 0.02 * noise("norm.weight", 4),
        "pos": 0.5 * noise("pos", 4, 4),
        "same.weight": noise("also.weight", 2, 2),
        "z.bias": 0.02 * noise("z.bias", 4),
        "also.weight": noise("also.weight", 2, 2),
        "fixed": torch.full((2,), 3.0, dtype=torch.float64),
    }
    state = fill.weights(manifest)
    assert state.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(state[name], values.float(), rtol=1e-6, atol=1e-7)
