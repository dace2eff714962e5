"""`course evaluate labels`: what is left of label maps after a trip through a coarse grid."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.segmentation import best_bilinear, best_windows, mean_iou
from course_lib.training.recipes.segmentation import SegmentationRecipe, held_out
from course_lib.upsampling import DUpsampling, Projection, fit_projection, label_windows, resize_matrix

STRIDES, RANKS = (16, 32), (4, 8, 16, 32, 64)
SEARCHED, STEPS = 100, 200
PROTOCOL = (
    "label maps of generated scenes (96 x 96, background and three shapes), W from 250 training scenes, mean IoU on "
    "300 held-out ones; squares: the coarse scores or codes with the least sum of squared errors to the one-hot map; "
    f"entropy: those that {STEPS} steps of Adam (rate 0.3, from 8 times the former) find for the cross-entropy, on the "
    f"first {SEARCHED} maps"
)


def scenes() -> SegmentationRecipe:
    """Return the recipe whose scenes are measured; it is not trained."""
    return SegmentationRecipe(name="labels", steps=1, batch=1, decoder="dupsampling")


def measure(recipe: SegmentationRecipe) -> dict[str, Any]:
    """Return {"16": {"bilinear": {"squares", "entropy"}, "windows": {"4": {...}, ...}}, "32": ...}, mean IoU each.

    squares, entropy: see PROTOCOL. The recipe says which scenes, and how many.
    """
    data, classes = recipe.data(), recipe.classes
    train = torch.stack([data.sample(index)[1] for index in range(recipe.fitted)])
    _, maps = held_out(recipe.held_out, recipe.side, recipe.object_size)
    with tqdm(total=len(STRIDES) * (1 + len(RANKS)), desc="trips") as bar:
        return {str(r): _stride(r, train, maps, classes, bar) for r in STRIDES}


def _stride(r: int, train: Tensor, maps: Tensor, classes: int, bar: Any) -> dict[str, Any]:
    whole = fit_projection(label_windows(train, r, classes), max(RANKS))
    some = maps[:SEARCHED]
    values: dict[str, Any] = {"bilinear": _bilinear(r, maps, some, classes), "windows": {}}
    bar.update()
    for k in RANKS:
        cut = Projection(whole.up[:, :k], whole.down[:k], whole.mean, whole.singular_values)
        decoder = DUpsampling(k, classes, r, cut)
        codes = cut.compress(label_windows(some, r, classes)).view(len(some), *(n // r for n in some.shape[1:]), k)
        values["windows"][str(k)] = {
            "squares": round(mean_iou(best_windows(maps, cut, r, classes), maps, classes), 4),
            "entropy": _searched(codes.movedim(-1, 1), decoder, some, classes),
        }
        bar.update()
    return values


def _bilinear(r: int, maps: Tensor, some: Tensor, classes: int) -> dict[str, float]:
    rows, columns = (resize_matrix(n // r, n, method="bilinear").to_dense().float() for n in maps.shape[1:])
    one_hot = F.one_hot(some, classes).movedim(-1, 1).float()
    coarse = torch.linalg.pinv(rows) @ one_hot @ torch.linalg.pinv(columns).T
    return {
        "squares": round(mean_iou(best_bilinear(maps, r, classes), maps, classes), 4),
        "entropy": _searched(coarse, lambda z: rows @ z @ columns.T, some, classes),
    }


def _searched(start: Tensor, decoder: Callable[[Tensor], Tensor], labels: Tensor, classes: int) -> float:
    """Return the mean IoU of the codes that minimise the cross-entropy: a convex problem, for the decoder is linear."""
    codes = (8 * start).clone().requires_grad_()
    adam = torch.optim.Adam([codes], lr=0.3)
    for _ in range(STEPS):
        adam.zero_grad()
        F.cross_entropy(decoder(codes), labels).backward()  # type: ignore[no-untyped-call]
        adam.step()
    with torch.no_grad():
        return round(mean_iou(decoder(codes).argmax(1), labels, classes), 4)


def table(values: dict[str, Any]) -> str:
    """Return the values in lines."""
    lines = ["stride  enlarged by      least squares  cross-entropy"]
    for r, found in values.items():
        rows = {"bilinear": found["bilinear"]} | {f"{k} x windows": v for k, v in found["windows"].items()}
        lines += [f"{r:>6}  {name:<15} {v['squares']:>14.4f} {v['entropy']:>14.4f}" for name, v in rows.items()]
    return "\n".join(lines)
