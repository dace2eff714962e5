"""`course ship` and `course card`: weights out of a finished training, and what to know about them."""

import datetime
from pathlib import Path
from typing import Any

from torch import nn

from course_lib import checkpoints, datasets, measurements
from course_lib.classification import TinyClassifier
from course_lib.cli import ship_classification, ship_detection
from course_lib.cli.evaluate import PROTOCOLS, measure, method
from course_lib.cli.options import CLASSIFIERS, DETECTORS
from course_lib.detection.detectors import is_detector
from course_lib.files import check_writable
from course_lib.official.fitting import fit
from course_lib.super_resolution.any_scale import AnyScale
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.metrics import benchmark, enlarger, network, score
from course_lib.super_resolution.ttsr import TTSR
from course_lib.training import checkpoint, recipes
from course_lib.training.recipe import Recipe
from course_lib.training.recipes.classifiers import ClassifierRecipe

SETS = ("Set5", "Set14")
SCALES = (2, 3, 4, 6, 8)
"""Where a network of every scale is measured for its card; the first is that of its aim."""
PHOTOGRAPH = "coffee"
_NON_COMMERCIAL = "non-commercial research and teaching only, because of the training pictures; see LICENSE-TEXT"
_FREE = "CC BY 4.0; see LICENSE-TEXT"
_ORIGIN = ("command", "data", "hardware", "versions", "revision", "date")
_COST = ("steps", "seconds", "cpu_seconds")


def ship(name: str, folder: Path) -> dict[str, Any]:
    """Measure the network of a finished training, write data/checkpoints/NAME.safetensors and data/cards/NAME.json,
    and return the card.

    name: of the recipe. folder: where `course train NAME --save` left its checkpoint; the record that this command made
    tells data, hardware, time and revision. Raises ValueError where the training is not finished or is not the recorded
    one, its network is of a class that is not shipped, or something is missing in checkpoint or record;
    MeasurementMissing, DataMissing, CannotWrite; nothing is written then.
    """
    recipe = recipes.get(name)
    state = checkpoint.read(folder)
    record = measurements.read(f"train_{name}")
    _check_keys(f"the checkpoint in {folder}", state, "step", "recipe", "rows", "model", "precision")
    _check_keys(f"the record train_{name}", record, "values", *_ORIGIN)
    _check_keys(f"the record train_{name}", record["values"], "curve", *_COST)
    if state["step"] != recipe.steps or state["recipe"] != recipe.fields():
        raise ValueError(
            f"{folder} holds step {state['step']} of {recipe.steps} of {name}, or a training of another recipe; "
            f"`course train {name} --folder {folder} --save` goes on with it"
        )
    if record["values"]["curve"] != state["rows"]:
        raise ValueError(f"the recorded curve train_{name} is not that of {folder}; course train {name} --save")
    model = recipe.model().eval()
    checkpoints.check_class(model)
    fit(model, state["model"], f"recipe {name}")
    model = recipe.finished(model)
    for path in checkpoints.paths(name):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path)
    facts = {
        "name": name,
        "about": recipe.about,
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "recipe": recipe.fields(),
        "precision": state["precision"],
        "training": {key: record[key] for key in _ORIGIN} | {key: record["values"][key] for key in _COST},
        "licence": _NON_COMMERCIAL if "BSDS500" in record["data"] else _FREE,
        **_measured(model, recipe),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    return checkpoints.publish(name, model, {"licence": facts["licence"], "about": recipe.about}, facts)


def _check_keys(what: str, holder: Any, *keys: str) -> None:
    missing = [key for key in keys if not isinstance(holder, dict) or key not in holder]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}; course train --save makes both anew")


def _measured(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """Return "metrics", "protocol", "aim" and "photograph" of a network's card."""
    aim = getattr(recipe, "aim", None)
    if is_detector(model):
        detector: Any = model
        return ship_detection.measured(detector, aim, getattr(recipe, "sets", ()))
    if isinstance(model, TinyClassifier) and isinstance(recipe, ClassifierRecipe):
        return ship_classification.card(model, recipe)
    metrics = {data: _compare(model, data) for data in SETS}
    return {
        "metrics": metrics,
        "protocol": PROTOCOLS[usual_protocol(model)] + ("; without a reference" if isinstance(model, TTSR) else ""),
        "aim": _aim(aim, metrics),
        "photograph": {"name": PHOTOGRAPH, "psnr": photograph_psnr(model)},
    }


def _compare(model: nn.Module, data: str) -> dict[str, Any]:
    """Return PSNR and SSIM of a network on a set, and those of bicubic interpolation beside them.

    {"scale", "psnr", "ssim", "bicubic_psnr", "bicubic_ssim"}, or {"2": such a row, ...} for a network of every scale.
    """
    scales, protocol = _scales(model), usual_protocol(model)
    plain = method("bicubic") if protocol == "luminance" else enlarger("bicubic")
    found = measure(_contestant(model), data, scales, "network", protocol)
    bicubic = measure(plain, data, scales, "bicubic", protocol)
    rows = {
        scale: {
            "scale": int(scale),
            "psnr": row["psnr"],
            "ssim": row["ssim"],
            "bicubic_psnr": bicubic[scale]["psnr"],
            "bicubic_ssim": bicubic[scale]["ssim"],
        }
        for scale, row in found.items()
    }
    return rows if isinstance(model, AnyScale) else rows[str(scales[0])]


def usual_protocol(model: nn.Module) -> str:
    """Return the protocol by which a network is measured for its card: "luminance", or "benchmark" for RGB."""
    return "luminance" if isinstance(model, ESPCN) and model.channels == 1 else "benchmark"


def _contestant(model: nn.Module) -> Any:
    return network(model) if usual_protocol(model) == "luminance" else enlarger(model)


def _scales(model: nn.Module) -> tuple[int, ...]:
    return SCALES if isinstance(model, AnyScale) else (int(model.scale),)  # type: ignore[arg-type]


def rows(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return a card's metrics as (set, {"scale", "psnr", ...}), one for each set and scale."""
    found = []
    for data, row in metrics.items():
        found += [(data, row)] if "psnr" in row else [(data, one) for one in row.values()]
    return found


def _aim(psnr: float | None, metrics: dict[str, Any]) -> dict[str, Any] | None:
    if psnr is None:
        return None
    first = next(row for data, row in rows(metrics) if data == "Set5")
    return {"set": "Set5", "psnr": psnr, "reached": first["psnr"] >= psnr}


def photograph_psnr(model: nn.Module) -> float:
    """Return the PSNR of a network on a photograph that comes with scikit-image: whoever loads the weights can check
    them by it without any set. By the protocol of the card; a network of every scale at x2.
    """
    picture, scale = datasets.photograph(PHOTOGRAPH), _scales(model)[0]
    if usual_protocol(model) == "luminance":
        return round(benchmark(picture, network(model), scale)[0], 3)
    return round(score(picture, enlarger(model), scale)[0], 3)


def text(card: dict[str, Any]) -> str:
    """Return a card for people to read."""
    training = card["training"]
    lines = [
        f"{card['name']}: {card['about']}",
        f"{card['model']}, {card['parameters']:,} parameters, {card['bytes']:,} bytes, sha256 {card['sha256']}",
        "",
        *_told(card),
    ]
    hardware = training["hardware"]
    lines += [
        f"protocol: {card['protocol']}",
        "",
        f"trained on: {training['data']}",
        f"licence of the weights: {card['licence']}",
        f"trained by: {training['command']}",
        f"recipe: {', '.join(f'{key} {value}' for key, value in card['recipe'].items() if key != 'name')}",
        f"{training['steps']:,} steps, {training['seconds'] / 60:.0f} minutes, {training['cpu_seconds'] / 60:.0f} CPU "
        f"minutes, precision {card['precision']}, on {hardware['gpu'] or hardware['processor']} "
        f"({hardware['cores']} cores), torch {training['versions']['torch']}",
        f"revision {training['revision']}, {training['date']}",
    ]
    return "\n".join(lines)


def _told(card: dict[str, Any]) -> list[str]:
    if card["model"] in DETECTORS:
        return ship_detection.lines(card)
    return ship_classification.lines(card) if card["model"] in CLASSIFIERS else _enlarged(card)


def _enlarged(card: dict[str, Any]) -> list[str]:
    lines = [
        f"{data} x{row['scale']}: {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f} "
        f"(bicubic {row['bicubic_psnr']:.2f} dB, {row['bicubic_ssim']:.4f})"
        for data, row in rows(card["metrics"])
    ]
    if aim := card["aim"]:
        lines.append(f"aim: {aim['psnr']} dB on {aim['set']}, {'reached' if aim['reached'] else 'not reached'}")
    return lines
