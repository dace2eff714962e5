"""TTSR under the official names gives the official outputs. Oracle: what the authors' code computed (goldens)."""

from functools import cache, partial

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_lib import official
from course_lib.super_resolution.ttsr import TTSR
from tests.parity import fill

INPUT = (
    "lr seed7 (1,3,10,12)*2-1; lrsr seed53 (1,3,40,48)*2-1; ref seed54 (1,3,48,56)*2-1; refsr seed55 (1,3,48,56)*2-1"
)


@cache
def weights() -> dict[str, Tensor]:
    """The drawn weights of 6.7 million numbers, once."""
    return fill.weights(fill.manifest("ttsr"))


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Small picture, the same enlarged, reference, the same shrunk and enlarged; in [0, 1], where ours are."""
    shapes = {7: (10, 12), 53: (40, 48), 54: (48, 56), 55: (48, 56)}
    lr, lr_up, ref, ref_down_up = (fill.picture((1, 3, *size), seed) for seed, size in shapes.items())
    return lr, lr_up, ref, ref_down_up


def keep(kept: dict[str, Tensor], name: str, _: nn.Module, __: object, output: Tensor) -> None:
    kept[name] = output.clone()


def golden() -> dict[str, Tensor]:
    with safe_open(fill.HERE / "golden" / "ttsr.safetensors", "pt") as stored:
        assert stored.metadata()["input"] == INPUT
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118


@torch.no_grad()
def test_textures_are_the_official_ones() -> None:
    """Tolerance: ten times what float32 and float64 differ by in the official code; the index is the same."""
    model, expected, noise = official.load("ttsr", weights()), golden(), fill.manifest("ttsr")["golden"]["res"]
    assert isinstance(model, TTSR)
    _, lr_up, ref, ref_down_up = inputs()
    found = model.textures(lr_up, ref, ref_down_up)
    assert torch.equal(found.index.flatten(1), expected["hard_index"])
    assert len(set(found.index.flatten().tolist())) == noise["distinct_ref_positions_used"]
    torch.testing.assert_close(found.soft, expected["soft_S"], rtol=0, atol=10 * noise["S"])
    for level, texture in {1: found.fine, 2: found.middle, 3: found.coarse}.items():
        came = {
            f"T_lv{level}_ch0_{3 if level == 1 else 7}": texture,
            f"T_lv{level}_mean_over_ch": texture.mean(1, True),
        }
        for name, tensor in came.items():
            channels = expected[name].shape[1]
            torch.testing.assert_close(tensor[:, :channels], expected[name], rtol=0, atol=10 * noise[f"T{level}"])


@torch.no_grad()
def test_the_extractor_is_the_official_one() -> None:
    """Tolerance: as of the textures, which are gathered from these maps."""
    model, expected, noise = official.load("ttsr", weights()), golden(), fill.manifest("ttsr")["golden"]["res"]
    assert isinstance(model, TTSR)
    _, lr_up, ref, ref_down_up = inputs()
    maps = {"lte_lrsr_lv3_ch0_7": model.extractor(lr_up)[2], "lte_refsr_lv3_ch0_7": model.extractor(ref_down_up)[2]}
    names = ("lte_ref_lv1_ch0_3", "lte_ref_lv2_ch0_7", "lte_ref_lv3_ch0_7")
    maps |= dict(zip(names, model.extractor(ref), strict=True))
    for name, came in maps.items():
        channels = expected[name].shape[1]
        torch.testing.assert_close(came[:, :channels], expected[name], rtol=0, atol=10 * noise["T3"])


@pytest.mark.parametrize("gradients", [False, True])
def test_outputs_are_the_official_ones(gradients: bool) -> None:
    """Tolerance: ten times what float32 and float64 differ by in the official code (of features: per deviation)."""
    model, expected, noise = official.load("ttsr", weights()), golden(), fill.manifest("ttsr")["golden"]["res"]
    assert isinstance(model, TTSR)
    kept: dict[str, Tensor] = {}
    for name, module in {"mainnet_SFE": model.first, "mainnet_conv11_tail": model.stage1.last}.items():
        module.register_forward_hook(partial(keep, kept, name))
    with torch.set_grad_enabled(gradients):
        sr = model(*inputs())
    torch.testing.assert_close(2 * sr - 1, expected["sr"], rtol=0, atol=10 * noise["sr"])
    for name, came in kept.items():
        wanted = expected[f"{name}_ch0_7"]
        tolerance = 10 * noise["sr"] * float(wanted.std() / expected["sr"].std())
        torch.testing.assert_close(came[:, :8], wanted, rtol=0, atol=tolerance)
    assert len(kept) == 2


def test_loads_strictly() -> None:
    """Oracle: the tensors and the counts of the manifest, which are those of the authors' code."""
    manifest = fill.manifest("ttsr")
    shapes = {key: shape for key, shape, _ in fill.rows(manifest)}
    with torch.device("meta"):
        model = official.adapter("ttsr").build()
    assert isinstance(model, TTSR)
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert own == {official.adapter("ttsr").rename(key): shape for key, shape in shapes.items()}
    assert len(own) == len(shapes) == manifest["n_tensors"]
    frozen = sum(buffer.numel() for buffer in model.buffers())
    extractor = sum(p.numel() for p in model.extractor.parameters())
    trained = sum(p.numel() for p in model.parameters())
    assert (frozen, extractor + frozen) == (12, manifest["n_params_LTE"])
    assert (trained - extractor, trained) == (manifest["n_params_MainNet"], manifest["n_params_trainable"])
    assert trained + frozen == manifest["n_numel_checkpoint"]
    assert (model.scale, model.residual_scale, model.added) == (4, manifest["args"]["res_scale"], False)
    assert "+".join(map(str, model.blocks)) == manifest["args"]["num_res_blocks"]


def test_the_copy_of_the_extractor_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """A program's memory holds a second extractor for the loss, its file does not; ours asks the first one."""
    state = weights()
    shift = {"LTE.sub_mean.weight": 2 * torch.eye(3).view(3, 3, 1, 1), "LTE.sub_mean.bias": torch.ones(3)}
    copied = {
        f"LTE_copy.{name.removeprefix('LTE.')}": value for name, value in state.items() if name.startswith("LTE.")
    }
    assert len(copied) == 10
    with caplog.at_level("INFO", "course_lib.official"):
        model = official.load("ttsr", {f"module.{name}": value for name, value in {**state, **shift, **copied}.items()})
    assert "10 tensors that the official code never uses were passed over" in caplog.text
    assert isinstance(model, TTSR)
    assert torch.equal(model.extractor.bias, torch.ones(3))
    assert torch.equal(model.extractor.weight[:, :, 0, 0], 2 * torch.eye(3))
    assert torch.equal(model.state_dict()["extractor.vgg.features.5.weight"], state["LTE.slice2.5.weight"])


def test_the_fill_rule() -> None:
    """Oracle: sum and first values that the manifest tells of some tensors."""
    for key, expected in fill.manifest("ttsr")["fill_check"].items():
        values = weights()[key].to(torch.float64).flatten()
        assert float(values.sum()) == pytest.approx(expected["sum"], abs=1e-5)
        assert values[:3].tolist() == pytest.approx(expected["first3"], abs=1e-7)


def test_another_file_is_refused() -> None:
    """One tensor less, one more, one of another network."""
    state = weights()
    with pytest.raises(official.Misfit, match=r"1 missing: stage4\.exchange\.paths\.x4_to_x1\.convs\.1\.bias$"):
        official.load("ttsr", {key: value for key, value in state.items() if key != "MainNet.ex123.conv31_2.bias"})
    for more in ("MainNet.RB11.16.conv1.bias", "MainNet.RB13.0.conv1.bias", "LTE.slice4.12.bias", "conv11_head.bias"):
        with pytest.raises(official.Misfit, match=f"1 unexpected: {more}"):
            official.load("ttsr", state | {more: torch.zeros(1)})
    with pytest.raises(official.Misfit, match=r"1 misshapen: MainNet\.conv11_head\.weight is"):
        official.load("ttsr", state | {"MainNet.conv11_head.weight": torch.zeros(64, 64, 3, 3)})
