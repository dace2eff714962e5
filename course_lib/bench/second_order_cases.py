"""What `course bench second-order` measures: covariances, their roots, and SAN itself (chapter 12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from course_lib.bench.sr_cases import Case, Make
from course_lib.plain.san import covariance_by_matrix, newton_schulz_loop
from course_lib.super_resolution.san import SAN
from course_lib.super_resolution.second_order import covariance, newton_schulz

PROTOCOL = (
    "maps of random numbers, random weights, float32, no gradients; the least of all runs but the first, rivals by "
    "turns (of 20 ms where they are fast), with one CPU thread its processor time. bare: covariance: one product of "
    "the maps with themselves; Newton-Schulz: its 13 products; SAN: its 3 x 3 convolutions alone. plain: the paper's "
    "product with a centring matrix of as many rows as there are places (not measured where it has a GiB and more), "
    "and the iteration as the paper writes it. mib: peak memory above what is there before (CPU: of a fresh process "
    "for each, after a run at a small size, what is freed goes back at once; CUDA: of the allocator), without the "
    "maps. of_limit: arithmetic a second of bare's products, as a share of a large matrix product's"
)
_CHANNELS = 64


def covariances(side: int, plain: bool = False) -> Make:
    """Return what makes the case of a covariance of 64 maps of side x side places; bare: one product X X'.

    plain: also the paper's product with the centring matrix of side^2 x side^2 numbers.
    """

    def make(device: str, small: bool) -> Case:
        n = 8 if small else side
        x = torch.randn(1, _CHANNELS, n, n, device=device)
        rows = x.flatten(2)
        forms: dict[str, Callable[[], Any]] = {"ours": lambda: covariance(x), "bare": lambda: rows @ rows.mT}
        if plain:
            forms["plain"] = lambda: covariance_by_matrix(x)
        return Case(forms, 2 * n * n * _CHANNELS**2)

    return make


def roots(device: str, small: bool) -> Case:
    """The case of a root by five steps of Newton and Schulz; bare: their products alone."""
    size = 8 if small else _CHANNELS
    matrix = covariance(torch.randn(1, size, 16, 16, device=device))
    products = 13  # one in the first step, three in each of the others

    def bare() -> None:
        for _ in range(products):
            matrix @ matrix

    forms = {"ours": lambda: newton_schulz(matrix), "bare": bare, "plain": lambda: newton_schulz_loop(matrix)}
    return Case(forms, 2 * products * size**3)


def network(device: str, small: bool) -> Case:
    """The case of the paper's network for x2 on 48 x 48 pixels; bare: its 3 x 3 convolutions alone."""
    torch.manual_seed(0)
    side = 8 if small else 48
    groups, blocks, channels = (1, 1, 16) if small else (20, 10, _CHANNELS)
    model = SAN(2, groups, blocks, channels).eval().to(device)
    lr = torch.rand(1, 3, side, side, device=device)
    features = torch.randn(1, channels, side, side, device=device).contiguous(memory_format=torch.channels_last)
    layers = [*model.body.modules(), *model.tail.stages]
    inner = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
    large = torch.randn(1, channels, 2 * side, 2 * side, device=device)

    def bare() -> None:
        for layer in inner:
            layer(features)
        model.head(lr)
        model.tail.last(large)

    numbers = sum(layer.weight.numel() for layer in [*inner, model.head]) + 4 * model.tail.last.weight.numel()
    return Case({"ours": lambda: model(lr), "bare": bare}, 2 * side**2 * numbers)


CASES: dict[str, Make] = {
    "covariance 64 x 48 x 48": covariances(48, plain=True),
    "covariance 64 x 128 x 128": covariances(128),
    "covariance 64 x 512 x 512": covariances(512),
    "Newton-Schulz 64 x 64": roots,
    "SAN x2 48 x 48": network,
}
"""The cases by name."""
