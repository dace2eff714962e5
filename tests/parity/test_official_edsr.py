"""EDSR under the official names gives the official outputs. Oracle: what the authors' code computed (goldens)."""

from functools import partial

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_lib import official
from course_lib.super_resolution.edsr import EDSR
from tests.parity import fill

COUNTS = {
    "edsr_baseline_x2": 1_369_883,
    "edsr_baseline_x3": 1_554_523,
    "edsr_baseline_x4": 1_517_595,
    "edsr_full_x2": 40_729_627,
}
MEANS = torch.tensor([0.4488, 0.4371, 0.4040])


def weights(name: str) -> dict[str, Tensor]:
    """The drawn weights, and the mean shifts as the official code makes them: x - 255 mean, x + 255 mean."""
    state = fill.weights(fill.manifest(name))
    for part, sign in {"sub_mean": -1, "add_mean": 1}.items():
        state |= {f"{part}.weight": torch.eye(3).view(3, 3, 1, 1), f"{part}.bias": sign * 255 * MEANS}
    return state


def keep(kept: dict[str, Tensor], name: str, _: nn.Module, __: object, output: Tensor) -> None:
    kept[name] = output.clone()


def test_outputs_are_the_official_ones() -> None:
    """Tolerance: ten times what float32 and float64 differ by in the official code."""
    manifest = fill.manifest("edsr_baseline_x2")
    model = official.load("edsr_baseline_x2", weights("edsr_baseline_x2"))
    assert isinstance(model, EDSR)
    kept: dict[str, Tensor] = {}
    model.encoder.head.register_forward_hook(partial(keep, kept, "head_out"))
    model.encoder.last.register_forward_hook(partial(keep, kept, "body_out_before_skip"))
    lr = fill.picture((1, 3, 20, 26), seed=7)  # the golden's input is 255 times this
    with safe_open(fill.HERE / "golden" / "edsr_baseline_x2.safetensors", "pt") as golden, torch.no_grad():
        assert golden.metadata()["input"] == "rnd((1,3,20,26),7,255.)"
        tolerance = 10 * manifest["golden"]["f32_vs_f64_maxabs"]
        torch.testing.assert_close(255 * model(lr), golden.get_tensor("sr"), rtol=0, atol=tolerance)
        for name, output in kept.items():
            torch.testing.assert_close(
                output[:, :8], golden.get_tensor(name), rtol=0, atol=tolerance, check_stride=False
            )
    assert kept.keys() == {"head_out", "body_out_before_skip"}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_network_loads_strictly(name: str, count: int) -> None:
    """Oracle: the tensors and the count of the manifest, which are those of the official code; mean shifts are counted
    there, and not trained. Its tensors under our names are all that ours has."""
    manifest = fill.manifest(name)
    shapes = {key: shape for key, shape, _ in fill.rows(manifest)}
    with torch.device("meta"):
        model = official.adapter(name).build()
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert own == {official.adapter(name).rename(key): shape for key, shape in shapes.items()}
    assert len(own) == len(shapes) == manifest["n_tensors"]
    assert sum(value.numel() for value in model.state_dict().values()) == count == manifest["n_params_total"]
    assert sum(p.numel() for p in model.parameters()) == count - 24 == manifest["n_params_trainable"]


@pytest.mark.parametrize("name", COUNTS)
def test_every_network_is_configured_as_there(name: str) -> None:
    """Oracle: the arguments of the manifest; no tensor tells the residual scale, nor the range of the pictures."""
    there = fill.manifest(name)["args"]
    with torch.device("meta"):
        model = official.adapter(name).build()
    assert isinstance(model, EDSR)
    assert [model.scale] == there["scale"]
    assert (model.blocks, model.channels) == (there["n_resblocks"], there["n_feats"])
    assert {model.residual_scale, *(block.residual_scale for block in model.encoder.body)} == {there["res_scale"]}
    assert model.data_range == there["rgb_range"]
    assert not model.added


@pytest.mark.parametrize("name", COUNTS)
def test_every_network_enlarges(name: str) -> None:
    """Oracle: the shape; finite, and not the same everywhere."""
    model = official.load(name, weights(name))
    assert not model.training
    with torch.no_grad():
        sr = model(fill.picture((2, 3, 7, 5), seed=1))
    scale = int(name[-1])
    assert sr.shape == (2, 3, 7 * scale, 5 * scale)
    assert sr.isfinite().all()
    assert sr.std() > 0.01


@pytest.mark.parametrize("name", COUNTS)
def test_the_fill_rule(name: str) -> None:
    """Oracle: sum and first values that the manifest tells of some tensors, the official mean shifts among them."""
    manifest = fill.manifest(name)
    state = weights(name)
    assert {"add_mean.bias", "add_mean.weight"} < manifest["fill_check"].keys()
    for key, expected in manifest["fill_check"].items():
        values = state[key].to(torch.float64).flatten()
        assert float(values.sum()) == pytest.approx(expected["sum"], abs=1e-5)
        assert values[:3].tolist() == pytest.approx(expected["first3"], abs=1e-7)


def test_the_mean_shifts_of_a_new_network_are_the_official_ones() -> None:
    """Oracle: the official tensors, whose sum and first values the manifest tells."""
    own, theirs = EDSR(2, blocks=1, channels=1).state_dict(), weights("edsr_baseline_x2")
    for key in (f"{part}_mean.{kind}" for part in ("sub", "add") for kind in ("weight", "bias")):
        torch.testing.assert_close(own[key], theirs[key], rtol=1e-6, atol=0)


def test_a_file_of_another_scale_is_refused() -> None:
    """The official code takes a network of x2 into one of x3 or x4 and leaves the tail as it was, without a word."""
    state = weights("edsr_baseline_x2")
    expected = r"2 misshapen: tail\.0\.0\.weight is \(256, 64, 3, 3\), must be \(576, 64, 3, 3\)"
    with pytest.raises(official.Misfit, match=expected):
        official.load("edsr_baseline_x3", state)
    with pytest.raises(official.Misfit, match=r"2 missing: .*tail\.stages\.1"):
        official.load("edsr_baseline_x4", state)
    with pytest.raises(official.Misfit, match=r"2 unexpected: tail\.0\.2\.weight, tail\.0\.2\.bias"):
        official.load("edsr_baseline_x2", weights("edsr_baseline_x4"))


@pytest.mark.parametrize("lost", ["sub_mean.weight", "add_mean.bias", "head.0.bias", "body.16.weight", "tail.1.bias"])
def test_every_tensor_is_needed(lost: str) -> None:
    state = weights("edsr_baseline_x2")
    del state[lost]
    with pytest.raises(official.Misfit, match="1 missing"):
        official.load("edsr_baseline_x2", state)


@pytest.mark.parametrize("more", ["body.17.weight", "body.16.body.0.weight", "tail.0.4.weight", "head.1.bias", "x"])
def test_no_other_tensor_is_taken(more: str) -> None:
    state = weights("edsr_baseline_x2") | {more: torch.zeros(1)}
    with pytest.raises(official.Misfit, match=f"1 unexpected: {more}"):
        official.load("edsr_baseline_x2", state)


def test_the_files_mean_shift_is_used() -> None:
    """Oracle: the law x + bias. Other releases trained these tensors, so that they need not be the usual ones."""
    lr = torch.rand(1, 3, 6, 5)
    usual = weights("edsr_baseline_x2")
    other = usual | {"add_mean.bias": usual["add_mean.bias"] + 25.5, "sub_mean.bias": usual["sub_mean.bias"] + 12.75}
    with torch.no_grad():
        expected = official.load("edsr_baseline_x2", usual)(lr + 0.05) + 0.1
        came = official.load("edsr_baseline_x2", other)(lr)
    torch.testing.assert_close(came, expected, rtol=0, atol=1e-5)
