"""Meta-SR under the official names gives the official outputs. Oracle: what the authors' code computed (goldens)."""

from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_lib import official
from course_lib.plain.meta_sr import meta_upscale_plain, place
from course_lib.super_resolution.layers import MEAN_COLOUR
from course_lib.super_resolution.meta_sr import MetaSR
from tests.parity import fill

SCALES = {"1.5": Fraction(3, 2), "2.0": Fraction(2)}


@pytest.fixture(scope="module")
def model() -> MetaSR:
    """The published configuration with drawn weights, once."""
    loaded = official.load("metasr_rdn", fill.weights(fill.manifest("metasr_rdn")))
    assert isinstance(loaded, MetaSR)
    return loaded


@pytest.fixture(scope="module")
def golden() -> Iterator[dict[str, Tensor]]:
    with safe_open(fill.HERE / "golden" / "metasr_rdn.safetensors", "pt") as file:
        assert file.metadata()["input"] == "rnd((1,3,10,12),7,255.)"
        yield {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)


def noise(scale: str) -> float:
    return float(fill.manifest("metasr_rdn")["golden"]["f32_vs_f64"][f"x{scale}"])


@pytest.mark.parametrize("scale", SCALES)
def test_pictures_are_the_official_ones(model: MetaSR, golden: dict[str, Tensor], scale: str) -> None:
    """Tolerance: ten times what float32 and float64 differ by in the official code, whose pictures are in [0, 255]."""
    lr = fill.picture((1, 3, 10, 12), seed=7, largest=255.0) / 255
    expected = golden[f"sr_x{scale}"]
    with torch.no_grad():
        torch.testing.assert_close(model(lr, scale=float(scale)) * 255, expected, rtol=0, atol=10 * noise(scale))
    official_raw = golden.get(f"raw_out_x{scale}_before_mask")
    if official_raw is not None:  # the official code makes whole blocks of 2 x 2 and masks the rest
        kept = official_raw[:, :, golden[f"mask_x{scale}"].any(1)][..., golden[f"mask_x{scale}"].any(0)]
        assert torch.equal(kept, expected)
    assert model.output_size((10, 12), SCALES[scale]) == tuple(expected.shape[-2:])


@pytest.mark.parametrize("gradients", [False, True])
def test_features_are_the_official_ones(model: MetaSR, golden: dict[str, Tensor], gradients: bool) -> None:
    """Before the global skip, eight channels of them; tolerance as above."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        kept.append(output.detach().clone())

    hook = model.trunk.fusion2.register_forward_hook(keep)  # type: ignore[union-attr]
    with torch.set_grad_enabled(gradients):
        model.features(fill.picture((1, 3, 10, 12), seed=7, largest=255.0) / 255)
    hook.remove()
    expected = golden["gff_out_before_global_skip"]
    torch.testing.assert_close(kept[0][:, :8], expected, rtol=0, atol=10 * noise("2.0"))


def test_filters_and_their_places_are_the_official_ones(model: MetaSR, golden: dict[str, Tensor]) -> None:
    """The order of v (1 / r first) and of the filters: rows of the weight network for the four places of x2."""
    places = golden["unique_pos_x2.0"]
    assert sorted([float(part) for part in place(i, j, SCALES["2.0"])] for i in (0, 1) for j in (0, 1)) == (
        places.tolist()
    )
    with torch.no_grad():
        torch.testing.assert_close(model.filters(places), golden["P2W_of_unique_pos_x2.0_first16"], rtol=0, atol=1e-5)
    for scale, r in SCALES.items():
        mask = golden[f"mask_x{scale}"].flatten() if f"mask_x{scale}" in golden else torch.ones(480, dtype=torch.bool)
        height, width = int(10 * r), int(12 * r)
        ours = [[float(part) for part in place(i, j, r)] for i in range(height) for j in range(width)]
        theirs = golden[f"pos_mat_x{scale}"][0][mask]
        torch.testing.assert_close(theirs, torch.tensor(ours), rtol=0, atol=2e-6)


def test_the_plain_form_is_the_official_one_too(model: MetaSR, golden: dict[str, Tensor]) -> None:
    """The equations pixel by pixel on our features, then the mean colour; tolerance as above."""
    lr = fill.picture((1, 3, 10, 12), seed=7, largest=255.0) / 255
    with torch.no_grad():
        plain = meta_upscale_plain(model.features(lr)[0], model.filters, Fraction(3, 2), (15, 18))
    mean = 255 * torch.tensor(MEAN_COLOUR)[:, None, None]
    torch.testing.assert_close(plain + mean, golden["sr_x1.5"][0], rtol=0, atol=10 * noise("1.5"))


def test_it_loads_strictly() -> None:
    """Oracle: tensors and counts of the manifest. The mean shifts are parameters, begin as there, and may be absent."""
    manifest = fill.manifest("metasr_rdn")
    adapter = official.adapter("metasr_rdn")
    with torch.device("meta"):
        model = adapter.build()
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert own == {adapter.rename(key): shape for key, shape, _ in fill.rows(manifest)}
    assert sum(p.numel() for p in model.parameters()) == manifest["n_params_trainable"] == 22_419_096
    assert model.get_parameter("subtract.bias").requires_grad
    shift = manifest["fill_check"]["sub_mean.bias"]
    assert MetaSR("edsr-tiny").get_parameter("subtract.bias").tolist() == pytest.approx(shift["first3"], abs=1e-4)
    state = {key: torch.zeros(shape) for key, shape, _ in fill.rows(manifest) if "P2W" not in key}
    with pytest.raises(official.Misfit, match=r"4 missing: .*; 1 unexpected: extra$"):
        official.load("metasr_rdn", state | {"extra": torch.zeros(1)})
