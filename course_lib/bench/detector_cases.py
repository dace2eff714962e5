"""What `course bench detectors` measures: how much every detector of the book finds on the same scenes, beside what it
costs; and what the networks of the papers cost (chapters 14 to 24).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib import checkpoints, official
from course_lib.bench.timing import check_device, cpu_threads, least
from course_lib.detection import detectors
from course_lib.detection.detectors import Detector, is_detector
from course_lib.detection.evaluation import BANDS, evaluate, multiply_adds
from course_lib.detection.finding import find, memory
from course_lib.training.detectors import SCENES, ShownScenes
from course_lib.training.recipes.segmentation import HELD_OUT_SEED

PAPER: dict[str, tuple[int, int]] = {
    **{name: (300, 300) for name in ("ssd300", "fssd300", "dsod300")},
    "dssd321": (321, 321),
    **dict.fromkeys(("detr_r50", "deformable_detr_plain", "deformable_detr_refine", "deformable_detr_two"), (512, 512)),
    **dict.fromkeys(("yolos_ti", "yolos_s"), (512, 512)),
    **dict.fromkeys(("vidt_nano", "vidt_tiny", "vidt_wo_neck_tiny"), (512, 512)),
}
"""Networks of the papers, by the names of their checkpoints, and the (height, width) at which they are measured."""

SCORES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "duplicates")
MANY = 8
"""Pictures that are seen at once in the second column of times."""


def protocol(names: Sequence[str], pictures: int) -> str:
    """Return in words how `run` measures on scenes by name."""
    scenes = "; ".join(f"{name}: the first {pictures} of {_scenes(name)}" for name in names)
    small, large = BANDS
    return (
        f"{scenes}; COCO's rules, AP the mean over IoU 0.50 to 0.95, small and large part at {small:g} and {large:g} "
        "pixels; detectors of SSD's line: scores above 0.01, NMS at IoU 0.45; of DETR's line: the 100 best boxes of "
        "the set; duplicates: boxes of score 0.5 and more per found object, besides its first, before NMS; one_ms, "
        f"many_ms: from a picture, or {MANY}, of the first set in memory to boxes in pixels, detectors by turns, the "
        "least of all runs but the first, with one CPU thread its processor time; network_ms: of that the network "
        "alone, of one picture; multiply_adds: of one picture, without what deformable attention gathers; paper: "
        "networks of the papers with random weights, no scores, one after the other; memory: the most that lives at "
        "once in one picture's forward pass, parameters not counted"
    )


def shipped(names: Sequence[str]) -> tuple[dict[str, Detector], list[str]]:
    """Return the book's detectors of the classes of scenes by name, and the names of those that know others."""
    found: dict[str, Any] = {name: checkpoints.load(name) for name in checkpoints.names()}
    every = {name: model for name, model in found.items() if is_detector(model)}
    wanted = {_scenes(name).classes for name in names}
    fit = {name: model for name, model in every.items() if {detectors.names(model)} == wanted}
    return fit, sorted(set(every) - set(fit))


def run(
    device: str,
    threads: int | None,
    repeats: int,
    scenes: Sequence[str] = ("scenes-easy",),
    pictures: int = 500,
    paper: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Return {"detectors": {name: row}, "others": names of detectors with other classes, "paper": {name: row},
    "threads", "device", "repeats", "pictures"}.

    A row has "parameters", "multiply_adds", "picture", "one_ms", "many_ms", "network_ms", and "scores": {set: `SCORES`
    of `evaluate`, None where there is nothing to say}; a row of paper, which is empty without `paper`, has "memory" and
    only one time, "network_ms". Raises ValueError for a device that is not there.
    """
    check_device(device)
    models, others = shipped(scenes)
    rows: dict[str, dict[str, Any]] = {name: _costs(model) for name, model in models.items()}
    steps = len(models) * len(scenes) + len(PAPER) * paper
    with (
        cpu_threads(threads) as used,
        tqdm(total=steps, unit=" cases", disable=not progress, leave=False) as bar,
    ):
        moved: dict[str, Any] = {name: _module(model).to(device).eval() for name, model in models.items()}
        for name, times in _times(moved, scenes[0], repeats, device).items():
            rows[name] |= times
        for data in scenes:
            samples = [ShownScenes(_scenes(data)).sample(index) for index in range(pictures)]
            for name, model in moved.items():
                bar.set_description(f"{name} on {data}")
                found = evaluate(model, samples, detectors.names(model))
                rows[name].setdefault("scores", {})[data] = {key: _plain(found[key]) for key in SCORES}
                bar.update()
        large: dict[str, Any] = {}
        for name, size in PAPER.items() if paper else ():
            bar.set_description(name)
            large[name] = _of_paper(name, size, repeats, device)
            bar.update()
    order = sorted(rows, key=lambda name: rows[name]["one_ms"])
    facts = {"threads": used, "device": device, "repeats": repeats, "pictures": pictures}
    return {"detectors": {name: rows[name] for name in order}, "others": others, "paper": large, **facts}


def table(values: Mapping[str, Any]) -> str:
    """Return the measurement as text."""
    lines = [f"device {values['device']}, {values['threads']} CPU threads"]
    first: dict[str, Any] = next(iter(values["detectors"].values()), {"scores": {}})
    for data in first["scores"]:
        lines += ["", f"{data}: {values['pictures']} pictures"]
        lines.append(f"{'':<22}{'AP':>8}{'AP50':>8}{'small':>8}{'medium':>8}{'large':>8}{'dupl.':>8}{'1: ms':>9}")
        lines[-1] += f"{f'{MANY}: ms':>9}{'network':>9}{'k param.':>10}{'M mult.':>9}"
        lines += [_line(name, row, data) for name, row in values["detectors"].items()]
    if values["others"]:
        lines += ["", f"not on these scenes, because they know other classes: {', '.join(values['others'])}"]
    if values["paper"]:
        lines += [
            "",
            f"{'networks of the papers':<24}{'picture':>10}{'M param.':>10}{'G mult.':>9}{'MiB':>7}{'ms':>10}",
        ]
        lines += [
            f"{name:<24}{'x'.join(map(str, row['picture'])):>10}{row['parameters'] / 1e6:>10.1f}"
            f"{row['multiply_adds'] / 1e9:>9.1f}{row['memory'] / 2**20:>7.0f}{row['network_ms']:>10.1f}"
            for name, row in values["paper"].items()
        ]
    return "\n".join(lines)


def _line(name: str, row: Mapping[str, Any], data: str) -> str:
    keys = ("AP", "AP50", "AP_small", "AP_medium", "AP_large", "duplicates")
    scores = (row["scores"][data][key] for key in keys)
    said = "".join(f"{'-':>8}" if score is None else f"{score:>8.3f}" for score in scores)
    times = "".join(f"{row[key]:>9.2f}" for key in ("one_ms", "many_ms", "network_ms"))
    return f"{name:<22}{said}{times}{row['parameters'] / 1e3:>10.1f}{row['multiply_adds'] / 1e6:>9.1f}"


def _scenes(name: str) -> Any:
    return replace(SCENES[name.removeprefix("scenes-")], seed=HELD_OUT_SEED)


def _module(model: Any) -> torch.nn.Module:
    module: torch.nn.Module = model
    return module


def _costs(model: Detector, size: tuple[int, int] | None = None) -> dict[str, Any]:
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": multiply_adds(model, size),
        "picture": list(size or model.picture or ()),
    }


@torch.no_grad()
def _times(models: Mapping[str, Detector], data: str, repeats: int, device: str) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each detector; all take turns, first with one picture, then with `MANY`."""
    shown = ShownScenes(_scenes(data))
    few = torch.stack([shown.sample(index).image for index in range(MANY)]).to(device)
    forms: dict[str, dict[str, Callable[[], Any]]] = {
        "one_ms": {name: partial(find, model, few[:1]) for name, model in models.items()},
        "many_ms": {name: partial(find, model, few) for name, model in models.items()},
        "network_ms": {name: partial(_network, model, few[:1]) for name, model in models.items()},
    }
    found: dict[str, dict[str, float]] = {name: {} for name in models}
    for key, functions in forms.items():
        for name, seconds in least(functions, repeats, device).items():
            found[name][key] = round(1e3 * seconds, 3)
    return found


def _network(model: Detector, pictures: torch.Tensor) -> Any:
    return model(model.normalisation(pictures))


@torch.no_grad()
def _of_paper(name: str, size: tuple[int, int], repeats: int, device: str) -> dict[str, Any]:
    """Return the row of one network of a paper, which is made for it and given up."""
    torch.manual_seed(0)
    model: Any = official.adapter(name).build().eval().to(device)
    pictures = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    seconds = least({name: partial(_network, model, pictures)}, repeats, device)[name]
    return _costs(model, size) | {"memory": memory(model, size), "network_ms": round(1e3 * seconds, 2)}


def _plain(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
