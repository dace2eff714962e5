"""What `course bench attention` measures: attention, deformable attention, matching of sets and their loss, and what an
encoder's layer costs as pictures grow (chapters 19 to 24).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from course_lib.bench.sr_cases import Case, Make
from course_lib.bench.timing import cpu_threads, least
from course_lib.blocks.attention import attend
from course_lib.blocks.deformable_attention import deformable_attention
from course_lib.blocks.transformer import EncoderLayer
from course_lib.detection.assignment import SetTruth, match_sets, matching_cost
from course_lib.detection.evaluation import products
from course_lib.detection.families.detr.deformable_transformer import DeformableEncoderLayer, cell_references
from course_lib.detection.set_losses import set_losses, total
from course_lib.plain.deformable import deformable_attention_grid_sample
from course_lib.plain.sets import match_one_matrix

PROTOCOL = (
    "random numbers, float32; the least of all runs but the first, rivals by turns (of 20 ms where they are fast), "
    "with one CPU thread its processor time. attention: pictures x heads x queries x keys x channels; ours: attend, "
    "bare: torch's fused kernel, plain: the matrix of weights made and kept; windows: with a bias for each head; with "
    "gradients: by queries, keys and values. deformable: 8 heads of 32 channels, 4 points on each of 4 maps of 80 x 80"
    " to 10 x 10; plain: one grid_sample for each map; with gradients: by values, places and weights. matching: 16 "
    "pictures, 100 queries, 20 objects each, 92 columns; bare: scipy's solver alone, on costs made before; plain: one "
    "matrix of all pictures' queries and objects, as the official code. set loss: the same, 6 layers, with gradients "
    "by logits and boxes; bare: the matching alone; plain: one layer after the other. mib: peak memory above what is "
    "there before (CPU: of a fresh process for each, after a run at a small size, what is freed goes back at once; "
    "CUDA: of the allocator). of_limit: arithmetic a second, as a share of a large matrix product's. curve: one "
    "encoder layer (256 channels, 8 heads, 1024 hidden) over all cells of four maps at strides 8 to 64: full attention"
    " beside deformable attention; gmacs: multiplications with additions of products, without what deformable "
    "attention gathers; growth: the power of the number of cells by which time grows between the last two pictures"
)
_MAPS = ((80, 80), (40, 40), (20, 20), (10, 10))
_PICTURES = (128, 256, 384, 512, 640)
_WIDTH, _HEADS, _HIDDEN = 256, 8, 1024


def attention(batch: int, heads: int, queries: int, keys: int, depth: int, gradients: bool = False) -> Make:
    """Return what makes the case of attention; bare: the fused kernel, plain: with the matrix of weights."""

    def make(device: str, small: bool) -> Case:
        n, m = (queries // 16 + 2, keys // 16 + 2) if small else (queries, keys)
        q, k, v = (_random((batch, heads, rows, depth), device, seed) for seed, rows in enumerate((n, m, m)))
        forms: dict[str, Callable[[], Tensor]] = {
            "ours": lambda: attend(q, k, v),
            "bare": lambda: F.scaled_dot_product_attention(q, k, v),
            "plain": lambda: attend(q, k, v, weights=True)[0],
        }
        flops = None if gradients else 4.0 * batch * heads * n * m * depth
        return Case({name: _with_gradients(form, (q, k, v), gradients) for name, form in forms.items()}, flops)

    return make


def windows(count: int, heads: int, window: int, depth: int) -> Make:
    """Return what makes the case of attention inside windows, with a bias for each head; forms as of `attention`."""

    def make(device: str, small: bool) -> Case:
        many, cells = (2 if small else count), window**2
        q, k, v = (_random((many, heads, cells, depth), device, seed) for seed in range(3))
        bias = _random((heads, cells, cells), device, 3).detach()
        forms: dict[str, Callable[[], Any]] = {
            "ours": lambda: attend(q, k, v, bias=bias),
            "bare": lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]),
            "plain": lambda: attend(q, k, v, bias=bias, weights=True)[0],
        }
        return Case(forms, 4.0 * many * heads * cells**2 * depth)

    return make


def deformable(queries: int, gradients: bool = False) -> Make:
    """Return what makes the case of deformable attention; plain: one grid_sample for each map."""

    def make(device: str, small: bool) -> Case:
        maps = [(max(1, height // 8), max(1, width // 8)) for height, width in _MAPS] if small else list(_MAPS)
        count = 9 if small else queries
        value = _random((1, sum(h * w for h, w in maps), _HEADS, 32), device, 0)
        random = torch.Generator().manual_seed(1)
        # around a reference, as queries read; some places lie outside
        centres = torch.rand(1, count, 1, 1, 1, 2, generator=random)
        spread = 0.1 * torch.randn(1, count, _HEADS, len(maps), 4, 2, generator=random)
        places = (centres + spread).to(device).requires_grad_()
        shares = torch.rand(1, count, _HEADS, len(maps) * 4, generator=random).softmax(-1)
        weights = shares.view(1, count, _HEADS, len(maps), 4).to(device).requires_grad_()
        forms: dict[str, Callable[[], Tensor]] = {
            "ours": lambda: deformable_attention(value, maps, places, weights),
            "plain": lambda: deformable_attention_grid_sample(value, maps, places, weights),
        }
        given = (value, places, weights)
        return Case({name: _with_gradients(form, given, gradients) for name, form in forms.items()})

    return make


def matching(device: str, small: bool) -> Case:
    """The case of matching queries with objects; bare: the solver alone, plain: all pictures in one matrix."""
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    outputs, truths = _sets(device, small, layers=1)
    outputs = {name: value.detach() for name, value in outputs.items()}
    costs = [cost.cpu().numpy() for cost in matching_cost(outputs["logits"], outputs["boxes"], truths)]

    def bare() -> Sequence[tuple[Tensor, Tensor]]:
        pairs = map(linear_sum_assignment, costs)
        return [(torch.from_numpy(rows), torch.from_numpy(columns)) for rows, columns in pairs]

    return Case(
        {
            "ours": lambda: match_sets(outputs, truths),
            "bare": bare,
            "plain": lambda: match_one_matrix(outputs["logits"], outputs["boxes"], truths),
        }
    )


def loss(device: str, small: bool) -> Case:
    """The case of the loss of a set in six layers, with gradients; bare: matching, plain: layer after layer."""
    outputs, truths = _sets(device, small, layers=6)
    logits = torch.cat([outputs["aux_logits"], outputs["logits"][None]])
    boxes = torch.cat([outputs["aux_boxes"], outputs["boxes"][None]])
    layers = [{"logits": one.detach(), "boxes": box.detach()} for one, box in zip(logits, boxes, strict=True)]

    def ours() -> Tensor:
        return total(set_losses(outputs, truths))

    def plain() -> Tensor:
        parts = zip(outputs["aux_logits"], outputs["aux_boxes"], strict=True)
        every = [*parts, (outputs["logits"], outputs["boxes"])]
        return torch.stack([total(set_losses({"logits": a, "boxes": b}, truths)) for a, b in every]).sum()

    forms = {"ours": ours, "plain": plain}
    given = tuple(outputs.values())
    made: dict[str, Callable[[], Any]] = {n: _with_gradients(form, given, True) for n, form in forms.items()}
    return Case(made | {"bare": lambda: [match_sets(one, truths) for one in layers]})


def curve(device: str, threads: int | None, repeats: int, small: bool = False) -> dict[str, Any]:
    """Return {"rows": [{"picture": side, "cells", "full_ms", "deformable_ms", "full_gmacs", "deformable_gmacs"}, ...],
    "growth": {"full", "deformable": power of the number of cells}} of an encoder's layer, see `PROTOCOL`.
    """
    rows: list[dict[str, Any]] = []
    with cpu_threads(threads), torch.no_grad():
        for side in _PICTURES[:2] if small else _PICTURES:
            layers = _layers(side, device)
            forms = {name: form for name, (form, _) in layers.items()}
            seconds = least(forms, repeats, device)
            row: dict[str, Any] = {"picture": side, "cells": sum((side // stride) ** 2 for stride in (8, 16, 32, 64))}
            row |= {f"{name}_ms": round(1e3 * value, 3) for name, value in seconds.items()}
            rows.append(row | {f"{name}_gmacs": _gmacs(*layer) for name, layer in layers.items()})
    last, before = rows[-1], rows[-2]
    wider = math.log(last["cells"] / before["cells"])
    growth = {name: round(math.log(last[f"{name}_ms"] / before[f"{name}_ms"]) / wider, 2) for name in forms}
    return {"rows": rows, "growth": growth}


def curve_table(values: Mapping[str, Any]) -> str:
    """Return a `curve` as text."""
    lines = ["", "an encoder's layer over four maps: full attention and deformable attention"]
    lines.append(
        f"{'picture':>9}{'cells':>8}{'full ms':>11}{'deform. ms':>12}{'ratio':>8}{'G full':>9}{'G deform.':>11}"
    )
    for row in values["rows"]:
        ratio = row["full_ms"] / row["deformable_ms"]
        lines.append(
            f"{row['picture']:>9}{row['cells']:>8}{row['full_ms']:>11.1f}{row['deformable_ms']:>12.1f}{ratio:>8.2f}"
            f"{row['full_gmacs']:>9.2f}{row['deformable_gmacs']:>11.2f}"
        )
    grown = values["growth"]
    lines.append(f"time grows with cells to the power of {grown['full']:.2f} (full) and {grown['deformable']:.2f}")
    return "\n".join(lines)


def _layers(side: int, device: str) -> dict[str, tuple[Callable[[], Any], nn.Module]]:
    torch.manual_seed(0)
    shapes = [(side // stride, side // stride) for stride in (8, 16, 32, 64)]
    cells = sum(h * w for h, w in shapes)
    full = EncoderLayer(_WIDTH, _HEADS, _HIDDEN).eval().to(device)
    sparse = DeformableEncoderLayer(_WIDTH, _HEADS, _HIDDEN).eval().to(device)
    x, positions = (_random((1, cells, _WIDTH), device, seed).detach() for seed in range(2))
    references = cell_references(shapes, torch.ones(1, len(shapes), 2, device=device))
    return {
        "full": (lambda: full(x, positions)[0], full),
        "deformable": (lambda: sparse(x, positions, references, shapes), sparse),
    }


def _gmacs(form: Callable[[], Any], layer: nn.Module) -> float:
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel of a CPU is unknown to the counter
        return round(products(form, layer) / 1e9, 4)


def _with_gradients(
    form: Callable[[], Tensor], given: Sequence[Tensor], gradients: bool
) -> Callable[[], Tensor | tuple[Tensor, ...]]:
    def both() -> tuple[Tensor, ...]:
        with torch.enable_grad():
            result = form()
            return (result.detach(), *torch.autograd.grad(result.square().sum(), tuple(given)))

    return both if gradients else form


def _random(shape: tuple[int, ...], device: str, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device).requires_grad_()


def _sets(device: str, small: bool, layers: int) -> tuple[dict[str, Tensor], list[SetTruth]]:
    """Return a detector's outputs with so many layers, and what is in the pictures."""
    pictures, queries, objects, columns = (3, 7, 3, 5) if small else (16, 100, 20, 92)
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(layers, pictures, queries, columns, generator=random)
    centres, sides = torch.rand(2, layers, pictures, queries, 2, generator=random)
    boxes = torch.cat([centres, 0.05 + 0.5 * sides], -1)
    wanted = torch.rand(pictures, objects, 4, generator=random) * torch.tensor([1.0, 1, 0.5, 0.5]) + 0.02
    labels = torch.randint(columns - 1, (pictures, objects), generator=random)
    truths = [SetTruth(name, box).to(device) for name, box in zip(labels, wanted, strict=True)]
    parts = {"logits": logits[-1], "boxes": boxes[-1]}
    if layers > 1:
        parts |= {"aux_logits": logits[:-1], "aux_boxes": boxes[:-1]}
    return {name: part.to(device).requires_grad_() for name, part in parts.items()}, truths


CASES: dict[str, Make] = {
    "attention 1x8x100x100x32": attention(1, 8, 100, 100, 32),
    "attention 1x8x100x950x32": attention(1, 8, 100, 950, 32),
    "attention 8x8x1024x1024x32": attention(8, 8, 1024, 1024, 32),
    "attention 8x..., gradients": attention(8, 8, 1024, 1024, 32, gradients=True),
    "attention 1x3x1124x1124x64": attention(1, 3, 1124, 1124, 64),
    "windows 64 of 7x7, 3x32": windows(64, 3, 7, 32),
    "windows 64 of 4x4, 3x32": windows(64, 3, 4, 32),
    "deformable, 300 queries": deformable(300),
    "deformable, 300, gradients": deformable(300, gradients=True),
    "deformable, 8500 queries": deformable(8500),
    "deformable, 8500, gradients": deformable(8500, gradients=True),
    "matching 16x100x20": matching,
    "set loss 16x100x20, 6 layers": loss,
}
"""The cases by name: attention of pictures x heads x queries x keys x channels."""
