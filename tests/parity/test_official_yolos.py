"""YOLOS under the official names gives the official outputs. Oracle: what the authors' code computed."""

from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_lib import official
from course_lib.blocks.patches import interpolate_between
from course_lib.detection.families.yolos.yolos import YOLOS
from tests.parity import fill

COUNTS = {"yolos_ti": 6_488_736, "yolos_s": 30_684_768, "yolos_s_dwr": 27_561_696, "yolos_b": 127_798_368}
WITHOUT_MIDDLE = {"yolos_s": 22_959_072, "yolos_s_dwr": 19_715_286, "yolos_b": 91_463_520}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(fill.HERE / "golden" / "yolos.safetensors", "pt") as file:
        assert file.metadata()["input"] == "randn(1, 3, 96, 128), seed 7"
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def model() -> YOLOS:
    manifest = fill.manifest("yolos_ti")
    state = fill.weights(manifest)
    for key, expected in manifest["fill_check"].items():
        values = state[key].double()
        assert [float(values.sum()), float(values.abs().sum())] == pytest.approx(expected, abs=1e-5)
    made = official.load("yolos_ti", {"model": state})
    assert isinstance(made, YOLOS)
    return made


def test_outputs_are_the_official_ones(model: YOLOS, golden: dict[str, Tensor]) -> None:
    """Tolerance: of the values' standard deviation; in float64 our outputs differ by 1.5e-4 of it from float32's."""
    came: dict[str, Tensor] = {}
    handles = []
    for place in (0, 5, 11):

        def keep(_: nn.Module, __: Any, tokens: Tensor, place: int = place) -> None:
            came[f"block{place}.out"] = tokens[:, ::3]

        handles.append(model.blocks[place].register_forward_hook(keep))
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(7))
    mask = torch.zeros(1, 96, 128, dtype=torch.bool)
    mask[..., 64:] = True  # the official code never looks at it
    with torch.no_grad():
        outputs = model(images, mask)
    for handle in handles:
        handle.remove()
    came |= {"pred_logits": outputs["logits"], "pred_boxes": outputs["boxes"]}
    assert {f"yolos_ti.{name}" for name in (*came, "interp_init_pos")} == {n for n in golden if "pe224" not in n}
    for name, output in came.items():
        expected = golden[f"yolos_ti.{name}"]
        assert output.shape == expected.shape
        error = float((output - expected).abs().max() / expected.std())
        assert error <= 3e-4, (name, error)


def test_positions_are_the_official_ones(model: YOLOS, golden: dict[str, Tensor]) -> None:
    """50 x 83 patches and 14 x 14 patches, both for 6 x 8."""
    made = interpolate_between(model.positions, (50, 83), (6, 8), 1, 100).detach()
    torch.testing.assert_close(made[:, ::3], golden["yolos_ti.interp_init_pos"], rtol=0, atol=1e-6)
    made = interpolate_between(golden["pe224.in"], (14, 14), (6, 8))
    torch.testing.assert_close(made, golden["pe224.patch_part_out"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_checkpoint_loads_strictly(name: str, count: int) -> None:
    """Oracle: the manifest's tensors, counts of parameters with and without middle positions, its constructor."""
    manifest, chosen = fill.manifest(name), official.adapter(name)
    with torch.device("meta"):
        model = chosen.build()
    assert isinstance(model, YOLOS)
    state = fill.shapes(name)
    renamed = {chosen.rename(key): value for key, value in state.items()}
    assert len(renamed) == len(state)
    official.fit(model, renamed, name)
    assert model.state_dict().keys() == renamed.keys()
    assert sum(p.numel() for p in model.parameters()) == count == manifest["params_total"]
    made = manifest["constructor"]
    assert model.learned == tuple(side // 16 for side in made["init_pe_size"])
    middle = made["mid_pe_size"]
    assert model.middle == (None if middle is None else tuple(side // 16 for side in middle))
    assert (model.classes, model.queries) == (made["num_classes"] + 1, made["det_token_num"])
    if model.middle_positions is not None:
        assert count - model.middle_positions.numel() == WITHOUT_MIDDLE[name]


def test_the_deep_and_narrow_one_runs() -> None:
    """Oracle: finite, and no two [DET] tokens alike; middle positions at another size, a picture cut at its border."""
    model = official.load("yolos_s_dwr", fill.weights(fill.manifest("yolos_s_dwr")))
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 70, 100, generator=torch.Generator().manual_seed(7)))
    assert (outputs["logits"].shape, outputs["boxes"].shape) == ((1, 100, 92), (1, 100, 4))
    assert all(value.isfinite().all() for value in outputs.values())
    assert outputs["boxes"].std(1).min() > 0.01


def test_another_file_is_refused() -> None:
    """Oracle: the names; a file of other sizes."""
    state = fill.shapes("yolos_ti")
    lost = {name: value for name, value in state.items() if name != "backbone.det_token"}
    with pytest.raises(official.Misfit, match=r"of yolos_ti: 1 missing: det_tokens$"):
        official.load("yolos_ti", lost)
    with pytest.raises(official.Misfit, match=r"of yolos_ti: 1 unexpected: class_embed\.layers\.3\.bias$"):
        official.load("yolos_ti", state | {"class_embed.layers.3.bias": torch.empty(1)})
    with pytest.raises(official.Misfit, match=r"of yolos_ti: 1 unexpected: backbone\.mid_pos_embed; .* misshapen"):
        official.load("yolos_ti", fill.shapes("yolos_s"))
