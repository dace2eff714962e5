"""What `course bench reference` measures: searching patches of a reference, and taking their textures (chapter 11)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.bench.sr_cases import Case, Make
from course_lib.plain.ttsr import hard_and_soft, relevance, transfer_folded
from course_lib.super_resolution.relevance import search, transfer

PROTOCOL = (
    "features of random numbers, float32, no gradients; the least of all runs but the first, rivals by turns, with one "
    "CPU thread its processor time. A picture enlarged to n x n and a reference of m x m are compared at n/4 x n/4 and "
    "m/4 x m/4 places of 256 channels; transfer: of 256, 128 and 64 channels at one, two and four times these places a "
    "side. bare: one matrix product of all features, in blocks of 4 rows of the picture. plain: the official way, all "
    "patches unfolded, the matrix of all pairs, patches folded (not measured where that matrix has 2.4 GiB). mib: peak "
    "memory above what is there before (CPU: of a fresh process for each, after a run at a small size, what is freed "
    "goes back at once; CUDA: of the allocator), without the features. of_limit: arithmetic a second of bare's "
    "product, as a share of a large matrix product's"
)
_CHANNELS = {1: 256, 2: 128, 4: 64}  # by how much finer a level is than the one searched


def searching(n: int, m: int, with_plain: bool = True) -> Make:
    """Return what makes the case of a search of n x n places in a reference of m x m."""

    def make(device: str, small: bool) -> Case:
        query, key = _features(8 if small else n, device), _features(9 if small else m, device)
        forms = {"ours": lambda: search(query, key), "bare": lambda: _products(query, key)}
        if with_plain:
            forms["plain"] = lambda: hard_and_soft(relevance(query, key), query.shape[-2:])
        return Case(forms, _flops(query, key))

    return make


def searching_and_transferring(n: int) -> Make:
    """Return what makes the case of a search and three levels of textures, n x n places in a reference of as many."""

    def make(device: str, small: bool) -> Case:
        side = 8 if small else n
        query, key = _features(side, device), _features(side, device)
        levels = {step: torch.randn(1, few, step * side, step * side).to(device) for step, few in _CHANNELS.items()}

        def ours() -> Sequence[Tensor]:
            index, score = search(query, key)
            return score, *(transfer(value, index, step) for step, value in levels.items())

        def plain() -> Sequence[Tensor]:
            index, score = hard_and_soft(relevance(query, key), query.shape[-2:])
            return score, *(transfer_folded(value, index, step) for step, value in levels.items())

        return Case({"ours": ours, "bare": lambda: _products(query, key), "plain": plain}, _flops(query, key))

    return make


def _features(side: int, device: str) -> Tensor:
    torch.manual_seed(side)
    return torch.randn(1, _CHANNELS[1], side, side).to(device)


def _products(query: Tensor, key: Tensor) -> None:
    right = key[0].flatten(1)
    for rows in torch.split(query[0], 4, dim=1):
        rows.flatten(1).T @ right


def _flops(query: Tensor, key: Tensor) -> float:
    return 2 * query.numel() * key[0, 0].numel()


CASES: dict[str, Make] = {
    "search 160 in 160": searching(40, 40),
    "search 320 in 320": searching(80, 80),
    "search and transfer 320": searching_and_transferring(80),
    "search 640 in 640": searching(160, 160, with_plain=False),
}
