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

GRIDS, STRIDES, RANKS = (8, 16, 32), (16, 32), (4, 8, 16, 32)
MAPS, STEPS = 60, (200, 600)
PROTOCOL = (
    f"label maps of generated scenes (96 x 96, background and three shapes), the first {MAPS} held-out ones, W from "
    "250 training scenes; mean IoU; squares: the coarse scores or codes with the least sum of squared errors to the "
    "one-hot map; entropy: those that Adam (rate 0.3, from 8 times the former) finds for the cross-entropy in "
    f"{STEPS[0]} and in {STEPS[1]} steps, where it has not converged"
)


def scenes() -> SegmentationRecipe:
    """Return the recipe whose scenes are measured; it is not trained."""
    return SegmentationRecipe(name="labels", steps=1, batch=1, decoder="dupsampling", held_out=MAPS)


def measure(recipe: SegmentationRecipe) -> dict[str, Any]:
    """Return {"bilinear": {"8": scores, ...}, "windows": {"16": {"4": scores, ...}, "32": ...}}: by stride, then rank.

    scores: {"squares": mean IoU, "entropy": {"200": mean IoU, "600": mean IoU}}, see PROTOCOL. The recipe says which
    scenes, and how many.
    """
    data, classes = recipe.data(), recipe.classes
    train = torch.stack([data.sample(index)[1] for index in range(recipe.fitted)])
    _, maps = held_out(recipe.held_out, recipe.side, recipe.object_size)
    with tqdm(total=len(GRIDS) + len(STRIDES) * len(RANKS), desc="trips") as bar:
        bilinear = {str(r): _bilinear(r, maps, classes, bar) for r in GRIDS}
        return {"bilinear": bilinear, "windows": {str(r): _windows(r, train, maps, classes, bar) for r in STRIDES}}


def _windows(r: int, train: Tensor, maps: Tensor, classes: int, bar: Any) -> dict[str, Any]:
    whole = fit_projection(label_windows(train, r, classes), max(RANKS))
    values = {}
    for k in RANKS:
        cut = Projection(whole.up[:, :k], whole.down[:k], whole.mean, whole.singular_values)
        decoder = DUpsampling(k, classes, r, cut)
        codes = cut.compress(label_windows(maps, r, classes)).view(len(maps), *(n // r for n in maps.shape[1:]), k)
        values[str(k)] = {
            "squares": round(mean_iou(best_windows(maps, cut, r, classes), maps, classes), 4),
            "entropy": _searched(codes.movedim(-1, 1), decoder, maps, classes),
        }
        bar.update()
    return values


def _bilinear(r: int, maps: Tensor, classes: int, bar: Any) -> dict[str, Any]:
    rows, columns = (resize_matrix(n // r, n, method="bilinear").to_dense().float() for n in maps.shape[1:])
    one_hot = F.one_hot(maps, classes).movedim(-1, 1).float()
    coarse = torch.linalg.pinv(rows) @ one_hot @ torch.linalg.pinv(columns).T
    values = {
        "squares": round(mean_iou(best_bilinear(maps, r, classes), maps, classes), 4),
        "entropy": _searched(coarse, lambda z: rows @ z @ columns.T, maps, classes),
    }
    bar.update()
    return values


def _searched(start: Tensor, decoder: Callable[[Tensor], Tensor], labels: Tensor, classes: int) -> dict[str, float]:
    """Return the mean IoU reached after each of STEPS on the cross-entropy, a convex problem: the decoder is linear."""
    codes = (8 * start).clone().requires_grad_()
    adam = torch.optim.Adam([codes], lr=0.3)
    reached = {}
    for step in range(1, max(STEPS) + 1):
        adam.zero_grad()
        F.cross_entropy(decoder(codes), labels).backward()  # type: ignore[no-untyped-call]
        adam.step()
        if step in STEPS:
            with torch.no_grad():
                reached[str(step)] = round(mean_iou(decoder(codes).argmax(1), labels, classes), 4)
    return reached


def table(values: dict[str, Any]) -> str:
    """Return the values in lines."""
    lines = ["stride  enlarged by      least squares  " + "  ".join(f"entropy, {n} steps" for n in STEPS)]
    rows = [(r, "bilinear", found) for r, found in values["bilinear"].items()]
    rows += [(r, f"{k} x windows", found) for r, some in values["windows"].items() for k, found in some.items()]
    for r, name, found in rows:
        searched = "  ".join(f"{found['entropy'][str(n)]:18.4f}" for n in STEPS)
        lines.append(f"{r:>6}  {name:<15} {found['squares']:>14.4f}  {searched}")
    return "\n".join(lines)
