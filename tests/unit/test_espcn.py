"""ESPCN. Oracles: torch's functions called one by one, the paper's counts, our own resize, and laws of convolution."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib import datasets
from course_lib.colour import luminance
from course_lib.datasets.pairs import SRPairs
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.metrics import benchmark, network
from course_lib.training import Data, recipes, schedules, train
from course_lib.training.recipes import espcn as module
from course_lib.training.recipes.espcn import EspcnRecipe, start
from course_lib.upsampling import resize


def made(scale: int, **options: object) -> ESPCN:
    torch.manual_seed(0)
    return ESPCN(scale, **options).double().eval()  # type: ignore[arg-type]


def by_hand(model: ESPCN, lr: torch.Tensor) -> torch.Tensor:
    state = model.state_dict()
    h = torch.tanh(F.conv2d(lr, state["conv1.weight"], state["conv1.bias"], padding=2))
    h = torch.tanh(F.conv2d(h, state["conv2.weight"], state["conv2.bias"], padding=1))
    return F.conv2d(h, state["conv3.weight"], state["conv3.bias"], padding=1)


@pytest.mark.parametrize(("scale", "count"), [(2, 21_284), (3, 22_729), (4, 24_752), (8, 38_624)])
def test_parameters(scale: int, count: int) -> None:
    """Oracle: f1 = 5, n1 = 64, f2 = 3, n2 = 32, f3 = 3, counted by hand in the paper's notation."""
    model = ESPCN(scale)
    assert sum(p.numel() for p in model.parameters()) == count
    assert count == (25 + 1) * 64 + (9 * 64 + 1) * 32 + (9 * 32 + 1) * scale**2
    assert list(model.state_dict()) == [f"conv{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias")]


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_paper_layer_by_layer(scale: int, channels: int) -> None:
    """Oracle: torch.nn.functional, one call a layer, and torch's own shuffle; a picture that is not square."""
    model = made(scale, channels=channels)
    lr = torch.rand(2, channels, 6, 9, dtype=torch.float64)
    subpixels = by_hand(model, lr)
    torch.testing.assert_close(model.subpixels(lr), subpixels)
    torch.testing.assert_close(model(lr), F.pixel_shuffle(subpixels, scale))
    assert model(lr).shape == (2, channels, 6 * scale, 9 * scale)


def test_options() -> None:
    """Oracle: the same weights without the option, then sigmoid, or our bicubic with the border of the evaluation."""
    paper, lr = made(3), torch.rand(1, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(made(3, output="sigmoid")(lr), paper(lr).sigmoid())
    bicubic = resize(lr, scale=3, method="bicubic", a=-0.5, border="symmetric")
    torch.testing.assert_close(made(3, added=True)(lr), paper(lr) + bicubic)
    assert paper(lr).shape == (1, 15, 21)


def test_gradients() -> None:
    """Oracle: finite differences (gradcheck) through layers, shuffle and the added enlargement."""
    model = made(2, added=True)
    with torch.no_grad():
        for layer in (model.conv1, model.conv2, model.conv3):
            layer.weight.mul_(2)
    lr = torch.rand(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = model.conv3.weight.detach().clone().requires_grad_()

    def run(lr: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(model, {"conv3.weight": weight}, (lr,))
        return result

    assert torch.autograd.gradcheck(run, (lr, weight), fast_mode=True)


def test_batched_is_single_and_moves_with_the_picture() -> None:
    """Laws: a batch is its pictures; away from the border a shift by 1 gives a shift by the scale."""
    model = made(3)
    lr = torch.rand(3, 1, 12, 13, dtype=torch.float64)
    torch.testing.assert_close(model(lr), torch.stack([model(one) for one in lr]))
    moved = model(lr.roll((1, 2), (-2, -1))).roll((-3, -6), (-2, -1))
    torch.testing.assert_close(moved[..., 18:-18, 18:-18], model(lr)[..., 18:-18, 18:-18])


def test_dtype_follows() -> None:
    model = ESPCN(2, added=True).half()
    assert model(torch.rand(1, 4, 4).half()).dtype == torch.float16


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("batch", [(2, 3), (2, 1, 2), (0, 2)])
def test_any_leading_axes(added: bool, batch: tuple[int, ...]) -> None:
    """Oracle: the same pictures in one row."""
    model, lr = made(3, added=added), torch.rand(*batch, 1, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(model(lr), model(lr.flatten(0, -4)).reshape(*batch, 1, 12, 15))
    assert model.subpixels(lr).shape == (*batch, 9, 4, 5)


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 1, 2, 4, 4), (1, 0, 4), (1, 2, 4, 4)])
def test_wrong_pictures_are_named(shape: tuple[int, ...]) -> None:
    for ask in (ESPCN(2), ESPCN(2).subpixels):
        with pytest.raises(ValueError, match=r"lr must be \(\.\.\., 1, h, w\) with h, w >= 1") as caught:
            ask(torch.zeros(shape))
        assert str(shape) in str(caught.value)
        with pytest.raises(TypeError, match=r"lr must be a torch\.Tensor, got ndarray"):
            ask(torch.zeros(1, 4, 4).numpy())


def test_wrong_arguments_are_named() -> None:
    for scale in (0, -1, 2.0, True):
        with pytest.raises((TypeError, ValueError), match=r"scale must be (at least 1|a whole number), got"):
            ESPCN(scale)  # type: ignore[arg-type]
    assert type(ESPCN(np.int64(3)).scale) is int  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"channels must be .* got 0"):
        ESPCN(2, channels=0)
    with pytest.raises(ValueError, match=r"output must be one of linear, sigmoid; got 'tanh'"):
        ESPCN(2, output="tanh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'output must be "linear"'):
        ESPCN(2, output="sigmoid", added=True)


def test_a_network_as_benchmark_takes_it() -> None:
    """Oracle: the added network whose last layer is zero is bicubic, so its numbers are bicubic's."""
    model = ESPCN(3, added=True)
    nn.init.zeros_(model.conv3.weight)
    nn.init.zeros_(model.get_parameter("conv3.bias"))
    picture = (torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0)) * 255).round() / 255

    def bicubic(low: torch.Tensor, scale: int) -> torch.Tensor:
        return resize(low, scale=scale, method="bicubic", border="symmetric")

    assert benchmark(picture, network(model), 3) == pytest.approx(benchmark(picture, bicubic, 3), abs=2e-3)
    assert not network(model)(torch.rand(1, 4, 4, dtype=torch.float64), 3).requires_grad
    with pytest.raises(ValueError, match="scale must be 3, the only one this network was trained for; got 2"):
        benchmark(picture, network(model), 2)


def test_the_start_bends_tanh() -> None:
    """Oracle: the numbers that the recipe speaks of, on a photograph's own contrast.

    With PyTorch's weights the first layer's sums leave tanh a straight line (tanh x = x to a fraction of a percent);
    with ours they do not. Mid grey gives zero in the middle of the picture, and the added network starts near bicubic.
    """
    lr = luminance(datasets.photograph("coffee", (90, 120)))[None]
    torch.manual_seed(0)
    plain, started, added = ESPCN(3), ESPCN(3), ESPCN(3, added=True)
    for model in (started, added):
        model.load_state_dict(plain.state_dict())
        start(model, contrast=10.0)
    with torch.no_grad():
        detail = {name: model.conv1(lr).std((-2, -1)).mean() for name, model in (("torch", plain), ("ours", started))}
        assert detail["torch"] < 0.15
        assert detail["ours"] > 0.4
        assert (started.conv1(lr).abs() > 2).float().mean() < 0.1  # and few are saturated
        grey = torch.full((1, 1, 15, 15), 0.45)
        assert started.conv1(grey)[..., 7, 7].abs().max() < 1e-5
        torch.testing.assert_close(started(grey)[0, 0, 22, 22], torch.tensor(0.45))
        assert (added(lr) - resize(lr, scale=3, border="symmetric")).abs().mean() < 0.03


def test_recipes_differ_in_what_they_say() -> None:
    """Oracle: the paper's network is not added to anything, the other is; both end their schedule near zero."""
    paper, added = recipes.get("espcn-x3"), recipes.get("espcn-x3-added")
    assert isinstance(paper, EspcnRecipe)
    assert isinstance(added, EspcnRecipe)
    assert not paper.model().added
    assert added.model().added
    assert paper.model().output == added.model().output == "linear"
    for recipe in (paper, added):
        model = recipe.model()
        rates = {id(p): group["lr"] for group in recipe.optimiser(model).param_groups for p in group["params"]}
        assert len(rates) == 6
        assert rates[id(model.conv3.weight)] == pytest.approx(recipe.rate * recipe.last)
        assert rates[id(model.conv1.bias)] == rates[id(model.conv2.weight)] == recipe.rate
        assert recipe.factor(0) < 0.01
        assert recipe.factor(recipe.warm_up) == 1
        assert recipe.factor(recipe.steps - 1) < 1e-6
        assert [recipes.get(recipe.name, steps=2).factor(step) for step in (0, 1)] == [0.5, 1]


def test_loss_is_the_mean_squared_error() -> None:
    """Oracle: the mean of squares written out, in float32 under autocast too."""
    recipe = recipes.get("espcn-x3-added")
    assert isinstance(recipe, EspcnRecipe)
    torch.manual_seed(0)
    model = recipe.model()
    lr, hr = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 24, 24)
    torch.testing.assert_close(recipe.loss(model, (lr, hr)), ((model(lr) - hr) ** 2).mean())
    with torch.autocast("cpu", torch.bfloat16):
        assert recipe.loss(model, (lr, hr)).dtype == torch.float32


def test_a_few_steps_learn() -> None:
    """Oracle: the loss on the free photographs falls below a third of the first; nothing needs a download."""

    class Small(EspcnRecipe):
        def data(self) -> Data:
            return SRPairs(3, 12, source="photographs")

        def validate(self, model: ESPCN) -> dict[str, float]:
            return {}

    recipe = Small(name="small", steps=40, batch=8, warm_up=5, validate_every=10)
    losses = [row["loss"] for row in train(recipe, device="cpu", progress=False).curve if "loss" in row]
    assert losses[-1] < losses[0] / 3


def test_validation_takes_photographs_where_there_is_no_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: `benchmark` on the three photographs, and bicubic beside it."""

    def missing(name: str) -> None:
        raise datasets.DataMissing(name)

    monkeypatch.setattr(module.datasets, "pictures", missing)
    module.shown.cache_clear()
    module._bicubic.cache_clear()
    try:
        recipe = recipes.get("espcn-x3-added")
        model = recipe.model()
        nn.init.zeros_(model.get_parameter("conv3.weight"))
        values = recipe.validate(model)
        assert values.keys() == {"psnr_photographs", "bicubic_photographs"}
        assert values["psnr_photographs"] == pytest.approx(values["bicubic_photographs"], abs=0.01)
        assert values["bicubic_photographs"] == pytest.approx(30.2, abs=3)
    finally:
        module.shown.cache_clear()
        module._bicubic.cache_clear()


def test_warm_up_and_cosine() -> None:
    """Oracle: the points one can say without a formula: the rise is a line, half way down is one half, then zero."""
    factors = [schedules.warm_up_cosine(step, 14, 4) for step in range(15)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[9] == pytest.approx(0.5)
    assert factors[14] == pytest.approx(0)
    assert all(a > b for a, b in itertools.pairwise(factors[4:]))
    assert schedules.warm_up_cosine(0, 10) == 1
    for steps, warm_up in ((4, 4), (4, -1)):
        with pytest.raises(ValueError, match="warm_up must be at least 0 and less than steps = 4"):
            schedules.warm_up_cosine(0, steps, warm_up)
