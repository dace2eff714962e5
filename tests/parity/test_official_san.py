"""SAN under the official names gives the official outputs. Oracle: what the authors' code computed (goldens)."""

import logging
from functools import cache, partial

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_lib import official
from course_lib.super_resolution.san import SAN
from course_lib.super_resolution.second_order import SOCA, covariance, newton_schulz
from tests.parity import fill

COUNTS = {"san_x2": 15_712_800, "san_x3": 15_897_440, "san_x4": 15_860_512}
DEAD = 38_044
MEANS = torch.tensor([0.4488, 0.4371, 0.4040])


@cache
def weights(name: str) -> dict[str, Tensor]:
    """The drawn weights, once, and the mean shifts as the official code makes them: x - 255 mean, x + 255 mean."""
    state = fill.weights(fill.manifest(name))
    for part, sign in {"sub_mean": -1, "add_mean": 1}.items():
        state |= {f"{part}.weight": torch.eye(3).view(3, 3, 1, 1), f"{part}.bias": sign * 255 * MEANS}
    return state


def keep(kept: dict[str, list[Tensor]], name: str, _: nn.Module, __: object, output: Tensor) -> None:
    kept.setdefault(name, []).append(output.clone())


def keep_input(kept: dict[str, list[Tensor]], name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    kept.setdefault(name, []).append(inputs[0].clone())


def test_outputs_are_the_official_ones() -> None:
    """Tolerance: ten times what float32 and float64 differ by in the official code, on values up to 310."""
    manifest = fill.manifest("san_x2")
    model = official.load("san_x2", weights("san_x2"))
    assert isinstance(model, SAN)
    kept: dict[str, list[Tensor]] = {}
    first, last = model.body[0], model.body[19]
    hooks: dict[str, nn.Module] = {"head_out": model.head, "rl_nl": model.non_local, "RG0_out": first}
    hooks |= {"RG19_out": last, "soca_out": first.attention}  # type: ignore[dict-item]
    for name, module in hooks.items():
        module.register_forward_hook(partial(keep, kept, name))
    soca = first.attention
    assert isinstance(soca, SOCA)
    soca.register_forward_pre_hook(partial(keep_input, kept, "soca_in"))
    with safe_open(fill.HERE / "golden" / "san_x2.safetensors", "pt") as golden, torch.no_grad():
        assert golden.metadata()["input"] == "rnd((1,3,18,22),7,255.)"  # 255 times what our model takes
        tolerance = 10 * manifest["golden"]["f32_vs_f64_maxabs"]
        sr = 255 * model(fill.picture((1, 3, 18, 22), seed=7))
        inner = kept["soca_in"][0]
        sigma = covariance(inner)
        came = {
            "sr": sr,
            "rlnl_head_out": kept["rl_nl"][0],
            "rlnl_tail_out": kept["rl_nl"][1],
            "soca_cov": sigma,
            "soca_cov_sqrt_ns5": newton_schulz(sigma),
            "soca_z": soca.statistic(inner)[..., None, None],
            "soca_att": soca.weights(inner),
            **{name: kept[name][0] for name in ("head_out", "RG0_out", "RG19_out", "soca_in", "soca_out")},
        }
        assert came.keys() == set(golden.keys())
        for name, output in came.items():
            expected = golden.get_tensor(name)
            error = float((output[:, : expected.shape[1]] - expected).abs().max())
            assert error <= min(tolerance, 5e-4 * float(expected.std())), (name, error)


def test_covariance_root_and_gradient_are_the_official_ones() -> None:
    """The official gradient is written by hand; autograd through ours gives it, and in float64 what autograd through
    the official forward gave there."""
    with safe_open(fill.HERE / "golden" / "mpncov.safetensors", "pt") as golden:
        assert golden.metadata()["input"] == "rnd((2,16,9,11),7); cotangent rnd((2,16,16),8)"
        given = fill.picture((2, 16, 9, 11), seed=7)
        assert torch.equal(given, golden.get_tensor("x"))
        for dtype, tolerance in ((torch.float32, 1.5e-6), (torch.float64, 1e-12)):
            x = given.to(dtype).requires_grad_()
            sigma = covariance(x)
            root = newton_schulz(sigma)
            (gradient,) = torch.autograd.grad(root, x, golden.get_tensor("cotangent").to(dtype))
            assert {sigma.dtype, root.dtype, gradient.dtype} == {dtype}
            for name, came in {"cov": sigma, "sqrt_ns5": root, "grad_x_official": gradient}.items():
                expected = golden.get_tensor(name).to(dtype)
                torch.testing.assert_close(came, expected, rtol=0, atol=1.5e-6)
            exact = golden.get_tensor("grad_x_autograd_f64").to(dtype)
            torch.testing.assert_close(gradient, exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_scale_loads_strictly(name: str, count: int) -> None:
    """Oracle: the tensors and the count of the manifest. The dead ones, by the manifest's own list, are not ours."""
    manifest = fill.manifest(name)
    chosen = official.adapter(name)
    dead = set(manifest["params_without_gradient"])
    shapes = {key: shape for key, shape, _ in fill.rows(manifest)}
    with torch.device("meta"):
        model = chosen.build()
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert own == {chosen.rename(key): shape for key, shape in shapes.items() if key not in dead}
    assert len(own) + len(dead) == len(shapes) == manifest["n_tensors"]
    assert len(dead) == 26
    trained = sum(p.numel() for p in model.parameters())
    assert trained + DEAD == count == manifest["n_params_total"]
    assert manifest["n_params_without_gradient"] == DEAD


@pytest.mark.parametrize("name", COUNTS)
def test_every_scale_is_configured_as_there(name: str) -> None:
    """Oracle: the arguments of the manifest; no tensor tells the range of the pictures."""
    there = fill.manifest(name)["args"]
    with torch.device("meta"):
        model = official.adapter(name).build()
    assert isinstance(model, SAN)
    assert [model.scale] == there["scale"]
    assert (model.groups, model.blocks, model.channels) == (
        there["n_resgroups"],
        there["n_resblocks"],
        there["n_feats"],
    )
    assert (model.reduction, model.data_range) == (there["reduction"], there["rgb_range"])
    assert {block.residual_scale for group in model.body for block in group.body} == {there["res_scale"]}  # type: ignore[union-attr]
    assert (model.attention, model.added) == ("second", False)
    assert all(isinstance(group.attention, SOCA) and group.attention.iterations == 5 for group in model.body)


def test_dead_tensors_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Oracle: the manifest's list. They may be absent too; with another shape they still change nothing."""
    dead = fill.manifest("san_x2")["params_without_gradient"]
    with caplog.at_level(logging.INFO, logger="course_lib.official.adapters"):
        official.load("san_x2", weights("san_x2"))
    assert "26 tensors that the official code never uses" in caplog.text
    assert all(f"'{name}'" in caplog.text for name in dead)
    caplog.clear()
    official.load("san_x2", {key: value for key, value in weights("san_x2").items() if key not in dead})
    assert "never uses" not in caplog.text


@pytest.mark.parametrize("name", ["san_x3", "san_x4"])
def test_every_scale_enlarges(name: str) -> None:
    """Oracle: the shape; finite, and not the same everywhere."""
    model = official.load(name, weights(name))
    assert not model.training
    with torch.no_grad():
        sr = model(fill.picture((1, 3, 5, 4), seed=1))
    scale = int(name[-1])
    assert sr.shape == (1, 3, 5 * scale, 4 * scale)
    assert sr.isfinite().all()
    assert sr.std() > 0.01


def test_the_fill_rule() -> None:
    """Oracle: sum and first values that the manifest tells of some tensors."""
    manifest = fill.manifest("san_x2")
    assert manifest["fill_check"]
    for key, expected in manifest["fill_check"].items():
        values = weights("san_x2")[key].to(torch.float64).flatten()
        assert float(values.sum()) == pytest.approx(expected["sum"], abs=1e-5)
        assert values[:3].tolist() == pytest.approx(expected["first3"], abs=1e-7)


def test_another_file_is_refused() -> None:
    """The official code loads without strictness: a file of another scale, or a misspelt tensor, goes unseen there."""
    state = weights("san_x2")
    with pytest.raises(official.Misfit, match=r"2 misshapen: tail\.0\.0\.weight"):
        official.load("san_x3", state)
    with pytest.raises(official.Misfit, match=r"2 missing: .*tail\.stages\.1"):
        official.load("san_x4", state)
    for lost in ("gamma", "sub_mean.bias", "non_local.non_local.W.bias", "RG.7.soca.conv_du.2.weight"):
        with pytest.raises(official.Misfit, match="1 missing"):
            official.load("san_x2", {key: value for key, value in state.items() if key != lost})
    for more in ("RG.20.gamma", "RG.0.gama", "RG.3.rcab.10.conv_first.0.bias", "conv_lust.bias", "tail.0.2.bias"):
        with pytest.raises(official.Misfit, match=f"1 unexpected: {more}"):
            official.load("san_x2", state | {more: torch.zeros(1)})
