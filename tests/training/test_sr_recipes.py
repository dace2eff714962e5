"""Recipes of the RGB networks. Oracles: the fields of the recipes, bicubic interpolation, and `metrics.score`."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from course_lib import datasets
from course_lib.super_resolution import metrics
from course_lib.super_resolution.any_scale import AnyScale
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.meta_sr import MetaSR
from course_lib.training import recipes
from course_lib.training.recipes import edsr
from course_lib.training.recipes.any_scale import AnyScaleRecipe
from course_lib.upsampling import resize

TINY = ("liif-tiny", "metasr-tiny", "edsr-tiny-x2", "edsr-tiny-x3", "edsr-tiny-x4")
VARIANTS: dict[str, dict[str, Any]] = {
    "anyscale-no-ensemble": {"local_ensemble": False},
    "anyscale-no-cell": {"cell_decoding": False},
    "anyscale-no-unfolding": {"feature_unfolding": False},
    "anyscale-not-added": {"added": False},
    "anyscale-rdn": {"encoder": "rdn-tiny"},
    "anyscale-meta": {"network": "metasr", "hidden": [56]},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Tensor, ...]]:
    """Two small 8-bit pictures in place of Set5."""
    arrays = [datasets.to_uint8(datasets.photograph(name, (44, 60))) for name in ("chelsea", "coffee")]
    pictures = tuple(datasets.from_uint8(array) for array in arrays)
    monkeypatch.setattr(edsr, "shown", lambda: ("small", pictures))
    edsr._shrunk.cache_clear()
    yield pictures
    edsr._shrunk.cache_clear()


def test_metasr_is_trained_as_liif_is() -> None:
    """Oracle: all fields but the decoder's, and what is only looked at, are equal: the comparison is fair."""
    liif, metasr = (recipes.get(name).fields() for name in ("liif-tiny", "metasr-tiny"))
    assert {key for key in liif if liif[key] != metasr[key]} == {"name", "network", "hidden"}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_from_the_full_one_in_one_thing(name: str) -> None:
    """Oracle: the fields by name."""
    full, other = recipes.get("anyscale-full").fields(), recipes.get(name).fields()
    assert {key: other[key] for key in full if full[key] != other[key]} == {"name": name, **VARIANTS[name]}


@pytest.mark.parametrize("name", TINY)
def test_about_two_hundred_thousand_parameters(name: str) -> None:
    """Oracle: the size that the cards promise, and the two for any scale within 2 %."""
    counts = {each: sum(p.numel() for p in recipes.get(each).model().parameters()) for each in (*TINY[:2], name)}
    assert 190_000 < counts[name] < 250_000
    assert counts["liif-tiny"] == 205_155
    assert math.isclose(counts["liif-tiny"], counts["metasr-tiny"], rel_tol=0.02)


@pytest.mark.parametrize("name", ["liif-tiny", "edsr-tiny-x3"])
def test_training_starts_near_bicubic(name: str) -> None:
    """Oracle: `resize` of the small picture; a start from PyTorch's own last layer is several times as far away."""
    lr = datasets.photograph("coffee", (24, 24))[None]
    bicubic = resize(lr, size=(72, 72), border="symmetric")
    distances = []
    for small in (0.1, 1.0):
        torch.manual_seed(0)
        model = recipes.get(name, small=small).model()
        with torch.no_grad():
            sr = model(lr, scale=3) if isinstance(model, AnyScale) else model(lr)
        distances.append(float((sr - bicubic).abs().mean()))
    assert distances[0] < 0.02
    assert distances[0] == pytest.approx(0.1 * distances[1], rel=0.01)


@pytest.mark.parametrize("name", ["liif-tiny", "anyscale-meta", "anyscale-not-added"])
def test_the_loss_is_the_mean_distance_of_single_pixels(name: str) -> None:
    """Oracle: the whole picture that the network makes, read at the queries of one patch shrunk by exactly 2."""
    torch.manual_seed(0)
    recipe = recipes.get(name)
    model = recipe.model()
    assert isinstance(model, MetaSR if name == "anyscale-meta" else LIIF)
    lr = datasets.photograph("coffee", (12, 12))[None]
    y, x = torch.randint(24, (2, 1, 50))
    coordinates = torch.stack(((2 * y + 1) / 24 - 1, (2 * x + 1) / 24 - 1), -1)
    cells, colours = torch.full((1, 50, 2), 2 / 24), torch.rand(1, 50, 3)
    with torch.no_grad():
        sr = model(lr, size=(24, 24))
        loss = recipe.loss(model, (lr, coordinates, cells, colours))
    assert isinstance(loss, Tensor)
    expected = (sr[0][:, y[0], x[0]].T - colours[0]).abs().mean()
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)


def test_edsr_reads_pictures_as_files_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: whole 255ths are equal to their own rounding; the loss by hand."""
    monkeypatch.setattr(edsr, "SRPairs", _photographs)
    recipe = recipes.get("edsr-tiny-x2", patch=8)
    lr, hr = recipe.data().sample(3)
    assert torch.equal((255 * lr).round() / 255, lr)
    model = recipe.model()
    with torch.no_grad():
        loss = recipe.loss(model, (lr[None], hr[None]))
        assert isinstance(loss, Tensor)
        assert float(loss) == pytest.approx(float((model(lr[None]) - hr).abs().mean()))


def _photographs(scale: int, patch: int, **options: Any) -> datasets.SRPairs:
    return datasets.SRPairs(scale, patch, **{**options, "source": "photographs"})


@pytest.mark.parametrize("name", ["edsr-tiny-x2", "liif-tiny"])
def test_the_curve_shows_the_psnr_of_the_benchmark(name: str, small: tuple[Tensor, ...]) -> None:
    """Oracle: `metrics.score`."""
    model = recipes.get(name).model().eval()
    scales = (2,) if name.startswith("edsr") else (2, 3.5)
    found = edsr.scores(model, scales)
    for scale in scales:
        wanted = [metrics.score(picture, metrics.enlarger(model), scale)[0] for picture in small]
        assert found[f"psnr_small_x{scale:g}"] == pytest.approx(sum(wanted) / 2, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("liif-tiny", "network", ["edsr", None]),
        ("liif-tiny", "encoder", ["vgg"]),
        ("liif-tiny", "patch", [0, 2.5]),
        ("liif-tiny", "queries", [0]),
        ("liif-tiny", "rate", [0.0, "x"]),
        ("liif-tiny", "small", [0]),
        ("liif-tiny", "added", [1]),
        ("liif-tiny", "local_ensemble", ["no"]),
        ("liif-tiny", "warm_up", [-1]),
        ("liif-tiny", "aim", ["high"]),
        ("metasr-tiny", "hidden", [(96, 96), ()]),
        ("edsr-tiny-x2", "scale", [1, 2.0]),
        ("edsr-tiny-x2", "blocks", [0]),
        ("edsr-tiny-x2", "data_range", [-1]),
        ("edsr-tiny-x2", "added", [0]),
        ("edsr-tiny-x2", "aim", [-1]),
    ],
)
def test_fields_out_of_range_are_refused(name: str, field: str, values: list[Any]) -> None:
    """Oracle: the name of the field, before anything is trained."""
    for value in values:
        with pytest.raises(ValueError, match=field) as caught:
            recipes.get(name, **{field: value})
        assert name in str(caught.value)
    assert isinstance(recipes.get("liif-tiny"), AnyScaleRecipe)
    with pytest.raises(ValueError, match=r"hidden of the recipe liif-tiny must be one width for metasr, got \(96, 96"):
        recipes.get("liif-tiny", network="metasr")
