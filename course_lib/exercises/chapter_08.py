"""Exercises of chapter 08, learning to upsample."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .compare import Wrong, kind, same_call, same_numbers
from .registry import exercise


def cheapest(values: Any, chances: Any, loss: Any) -> Any:
    """L2: the mean. L1: the value at which the chances, added up from the smallest value, pass one half."""
    pairs = sorted(zip(values, chances, strict=True))
    if loss == "L2":
        return sum(value * chance for value, chance in pairs)
    passed = 0.0
    for value, chance in pairs:
        passed += chance
        if passed > 0.5:
            return value
    return pairs[-1][0]


def _always_the_mean(values: Any, chances: Any, loss: Any) -> Any:
    return cheapest(values, chances, "L2")


def _likeliest(values: Any, chances: Any, loss: Any) -> Any:
    return cheapest(values, chances, "L2") if loss == "L2" else max(zip(chances, values, strict=True))[1]


def _chances_forgotten(values: Any, chances: Any, loss: Any) -> Any:
    return sum(values) / len(values) if loss == "L2" else sorted(values)[len(values) // 2]


_SEVERAL = ([0.9, 0.1, 0.3], [0.45, 0.25, 0.3])


@exercise(
    "08.1",
    title="the cheapest answer",
    hints=(
        "Squared costs are lowest at the mean, with each value weighed by its chance. Absolute costs at a median.",
        "For the median sort the values and add up their chances from the smallest on. Where do they pass one half?",
        "Of 0.1, 0.3, 0.9 with chances 0.25, 0.3, 0.45: 0.25, then 0.55, so L1 says 0.3, although 0.9 comes oftenest.",
    ),
    solution=cheapest,
    wrong=[
        (_always_the_mean, "is the mean again"),
        (_likeliest, "comes oftenest"),
        (_chances_forgotten, "weigh each value"),
        (0.5, "expected a function"),
    ],
)
def check_08_1(answer: Any) -> str:
    """Oracle: the costs themselves, tried on a fine grid of answers."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    values, chances = _SEVERAL
    squared, absolute = (answer(list(values), list(chances), loss) for loss in ("L2", "L1"))
    if _close(squared, sum(values) / 3):
        raise Wrong(f"L2 came as {squared:.4f}: weigh each value with its chance")
    if _close(absolute, cheapest(values, chances, "L2")):
        raise Wrong(f"L1 came as {absolute:.4f}, which is the mean again: absolute costs are lowest at a median")
    if _close(absolute, 0.9):
        raise Wrong("L1 came as 0.9, the value that comes oftenest; the median is where the chances pass one half")
    for given in (_SEVERAL, ([0.0, 1.0], [0.4, 0.6]), ([0.2], [1.0]), ([5.0, -2.0, 1.0, 0.5], [0.1, 0.6, 0.1, 0.2])):
        for loss, power in (("L2", 2), ("L1", 1)):
            same_call(answer, (*given, loss), _tried(*given, power), tolerance=1e-3)
    return "Half and half, L1 would not care: every answer between the two costs the same."


def _close(came: Any, value: float) -> bool:
    return isinstance(came, int | float) and math.isclose(came, value, abs_tol=1e-9)


def _tried(values: list[float], chances: list[float], power: int) -> float:
    grid = torch.linspace(min(values), max(values), 7001, dtype=torch.float64)
    costs = torch.zeros_like(grid)
    for value, chance in zip(values, chances, strict=True):
        costs += chance * (grid - value).abs() ** power
    return float(grid[costs.argmin()])


def weights(blocks: Any, channels: Any, r: Any) -> Any:
    """Every convolution from n to m channels has (9 n + 1) m weights; x4 has two stages of x2."""
    steps = {2: [2], 3: [3], 4: [2, 2]}[r]
    head, inside, last = (9 * 3 + 1) * channels, (9 * channels + 1) * channels, (9 * channels + 1) * 3
    tail = sum((9 * channels + 1) * channels * step**2 for step in steps) + last
    return head + (2 * blocks + 1) * inside + tail + 24


def _one_stage(blocks: Any, channels: Any, r: Any) -> Any:
    stages = (9 * channels + 1) * channels
    return weights(blocks, channels, 2) + stages * (r**2 - 4)


def _one_convolution(blocks: Any, channels: Any, r: Any) -> Any:
    return weights(blocks, channels, r) - blocks * (9 * channels + 1) * channels


def _without_mean(blocks: Any, channels: Any, r: Any) -> Any:
    return weights(blocks, channels, r) - 24


@exercise(
    "08.2",
    title="EDSR counted",
    hints=(
        "From n to m channels: (9 n + 1) m. Head 3 to c; each block twice c to c; the last one c to c; then the tail.",
        "A stage of the tail goes from c to c r^2 channels and shuffles. x4 has two stages, each for a factor of 2.",
        "Behind the stages stands one more convolution, c to 3. Then add 2 (9 + 3) = 24 for the two MeanShifts.",
    ),
    solution=weights,
    wrong=[
        (_one_stage, "two stages"),
        (_one_convolution, "two convolutions"),
        (_without_mean, "MeanShift"),
        (1369883, "expected a function"),
    ],
)
def check_08_2(answer: Any) -> str:
    """Oracle: the official counts, and networks of the library."""
    if callable(answer):
        came = {r: answer(16, 64, r) for r in (2, 4)}
        if came[2] == weights(16, 64, 2) and came[4] == _one_stage(16, 64, 4):
            raise Wrong("right for x2; x4 is two stages of c to 4 c channels, not one of c to 16 c")
        if came[2] == _one_convolution(16, 64, 2):
            raise Wrong(f"weights(16, 64, 2) came as {came[2]:,}: a block has two convolutions")
        if came[2] == _without_mean(16, 64, 2):
            raise Wrong(f"weights(16, 64, 2) came as {came[2]:,}: 24 too few, those of MeanShift")
    for given, count in (((16, 64, 2), 1_369_883), ((16, 64, 3), 1_554_523), ((16, 64, 4), 1_517_595)):
        same_call(answer, given, count)
    for given in ((8, 32, 2), (1, 5, 3), (2, 7, 4)):
        same_call(answer, given, weights(*given))
    return "The paper's large network, 32 blocks of 256 channels, has 40,729,627 at x2."


def scores(errors: Any) -> tuple[float, float]:
    """Turn each error into decibels and average, or average and turn the mean into decibels."""
    each = [-10 * math.log10(error) for error in errors]
    return sum(each) / len(each), -10 * math.log10(sum(errors) / len(errors))


def _turned_round(errors: Any) -> tuple[float, float]:
    return scores(errors)[1], scores(errors)[0]


def _amplitudes(errors: Any) -> tuple[float, float]:
    return 2 * scores(errors)[0], 2 * scores(errors)[1]


def _for_255(errors: Any) -> tuple[float, float]:
    more = 20 * math.log10(255)
    return scores(errors)[0] + more, scores(errors)[1] + more


@exercise(
    "08.3",
    title="two ways to the mean",
    hints=(
        "One error m is 10 log10(1 / m) dB, since white is 1.",
        "First number: decibels of each error, then their mean. Second: mean of the errors, then its decibels.",
        "For errors 0.1 and 0.001: 10 and 30 dB, mean 20. Their mean is 0.0505, which is 12.97 dB.",
    ),
    solution=scores,
    wrong=[
        (_turned_round, "the other way round"),
        (_amplitudes, "10 log10, not 20"),
        (_for_255, "white is 1"),
        ((20, 12.97), "expected a function"),
    ],
)
def check_08_3(answer: Any) -> str:
    """Oracle: the two formulas of the chapter."""
    if callable(answer):
        came = answer([0.1, 0.001])
        for wrong, why in (
            (_turned_round, "the two are the other way round"),
            (_amplitudes, "these are squared errors: 10 log10, not 20"),
            (_for_255, "white is 1 here, not 255"),
        ):
            if _same_pair(came, wrong([0.1, 0.001])):
                raise Wrong(f"scores([0.1, 0.001]) came as {came}: {why}")
    for errors in ([0.1, 0.001], [0.02], [0.01, 0.01, 0.01], [0.5, 0.0003, 0.02, 0.001]):
        same_call(answer, (errors,), scores(errors))
    return "The first is never below the second: one easy picture lifts a mean of decibels."


def _same_pair(came: Any, pair: tuple[float, float]) -> bool:
    right = isinstance(came, tuple | list) and len(came) == 2
    return right and all(_close(one, value) for one, value in zip(came, pair, strict=True))


def melt(weight: Any, bias: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: Any) -> tuple[Tensor, Tensor]:
    """gamma (W x + b - mean) / sqrt(var + eps) + beta: a factor for each output channel, and a new bias."""
    factor = gamma / (var + eps).sqrt()
    return weight * factor.view(-1, 1, 1, 1), (bias - mean) * factor + beta


def _inputs_scaled(
    weight: Any, bias: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: Any
) -> tuple[Tensor, Tensor]:
    factor = gamma / (var + eps).sqrt()
    return weight * factor.view(1, -1, 1, 1), (bias - mean) * factor + beta


def _bias_not_scaled(
    weight: Any, bias: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: Any
) -> tuple[Tensor, Tensor]:
    return melt(weight, bias, mean, var, gamma, beta, eps)[0], bias - mean + beta


def _no_root(weight: Any, bias: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: Any) -> tuple[Tensor, Tensor]:
    factor = gamma / (var + eps)
    return weight * factor.view(-1, 1, 1, 1), (bias - mean) * factor + beta


@exercise(
    "08.4",
    title="a normalisation melted away",
    hints=(
        "BatchNorm with fixed numbers is gamma (y - mean) / sqrt(var + eps) + beta. Put y = weight * x + bias into it.",
        "With factor = gamma / sqrt(var + eps) the new weight is factor times the old one, for each OUTPUT channel.",
        "weight * factor.view(-1, 1, 1, 1), and (bias - mean) * factor + beta.",
    ),
    solution=melt,
    wrong=[
        (_inputs_scaled, "output channel"),
        (_bias_not_scaled, "the bias"),
        (_no_root, "square root"),
        ((1, 0), "expected a function"),
    ],
)
def check_08_4(answer: Any) -> str:
    """Oracle: torch's convolution and BatchNorm in eval mode, on random numbers."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    numbers = torch.Generator().manual_seed(8)
    weight = torch.randn(4, 4, 3, 3, dtype=torch.float64, generator=numbers)
    bias, mean, beta = torch.randn(3, 4, dtype=torch.float64, generator=numbers)
    var, gamma = 0.5 + torch.rand(2, 4, dtype=torch.float64, generator=numbers)
    given = (weight, bias, mean, var, gamma, beta, 1e-5)
    came = answer(*(part.clone() if isinstance(part, Tensor) else part for part in given))
    if not (isinstance(came, tuple | list) and len(came) == 2 and all(isinstance(part, Tensor) for part in came)):
        raise Wrong("melt came as something else, expected a pair of tensors: weight (m, n, 3, 3) and bias (m)")
    for wrong, why in (
        (_inputs_scaled, "the factor belongs to the output channel, the first axis of the weight"),
        (_bias_not_scaled, "the weight is right; the bias must be scaled too: (bias - mean) * factor + beta"),
        (_no_root, "var is a square: divide by its square root"),
    ):
        if all(
            part.shape == other.shape and torch.allclose(part, other)
            for part, other in zip(came, wrong(*given), strict=True)
        ):
            raise Wrong(f"melt is not the same layer: {why}")
    x = torch.randn(1, 4, 6, 7, dtype=torch.float64, generator=numbers)
    expected = torch.nn.functional.batch_norm(
        torch.nn.functional.conv2d(x, weight, bias), mean, var, gamma, beta, eps=1e-5
    )
    same_numbers(torch.nn.functional.conv2d(x, came[0], came[1]), expected, "the melted layer's result")
    return "What melts away after training was needed, if at all, only for the training."
