"""Synthetic weights for official checkpoints: every tensor is drawn by the place of its name, so that none is stored.

A manifest (tests/parity/manifests) lists the tensors of a released file and what the rule below needs. The goldens
(tests/parity/golden) hold what the official code gave with these weights.

The tensor whose name is the k-th in sorted order (from 0, all names counted) is standard normal in float64 from
the seed 1000 + k. Matrices and kernels are divided by the root of their fan-in and multiplied by a gain; vectors are
multiplied by 0.02; weights of normalisations vary by as much around 1, or around a constant of the manifest.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
_JITTER = 0.02


def manifest(name: str) -> dict[str, Any]:
    """Return the manifest of an official checkpoint."""
    found: dict[str, Any] = json.loads((HERE / "manifests" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def rows(official: dict[str, Any]) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    """Return (name, shape, dtype) of every tensor, in the order of the released file."""
    table = official["entries"] if "entries" in official else official["tensors"]
    return [(name, tuple(shape), getattr(torch, kind)) for name, shape, kind, *_ in table]


def shapes(name: str) -> dict[str, Tensor]:
    """Return the tensors of a released file, without numbers."""
    return {key: torch.empty(shape, dtype=kind, device="meta") for key, shape, kind in rows(manifest(name))}


def picture(shape: tuple[int, ...], seed: int, largest: float = 1.0) -> Tensor:
    """Return a golden's input: uniform float32 in [0, largest)."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * largest


def weights(official: dict[str, Any]) -> dict[str, Tensor]:
    """Return {official name: tensor}; what stays as the architecture initialises it, and integers, are left out."""
    rule = official.get("fill", {})
    table = rows(official)
    places = {name: k for k, name in enumerate(sorted(name for name, _, _ in table))}
    drawn_as = _shared_names(official)
    state = {}
    for name, shape, dtype in table:
        left = name in official.get("left_as_is", ()) or any(re.search(p, name) for p in rule.get("left_as_is", ()))
        if left or not dtype.is_floating_point:
            continue
        source = drawn_as.get(name, name)
        generator = torch.Generator().manual_seed(1000 + places[source])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        state[name] = _scaling(source, shape, official, places)(noise).to(dtype)
    return state


def _scaling(name: str, shape: tuple[int, ...], official: dict[str, Any], places: Any) -> Callable[[Tensor], Tensor]:
    """Return what turns the noise of a tensor into its values; the first rule that applies counts."""
    rule = official.get("fill", {})
    module, _, last = name.rpartition(".")
    if name in official.get("override", {}):
        return lambda noise: torch.full_like(noise, official["override"][name])
    if last == "running_var":
        return lambda noise: 1 + _JITTER * noise.abs()
    if last == "running_mean":
        return lambda noise: _JITTER * noise
    if (around := _first(rule.get("constants", {}).items(), name)) is not None:
        return lambda noise: around * (1 + _JITTER * noise)
    if (times := _first(rule.get("scales", {}).items(), name)) is not None:
        return lambda noise: times * noise
    of_batch_norm = last == "weight" and f"{module}.running_mean" in places
    of_layer_norm = bool(rule) and last == "weight" and len(shape) <= 1
    if of_batch_norm or of_layer_norm or name in official.get("norm_weights", ()):
        return lambda noise: 1 + _JITTER * noise
    if len(shape) < 2:
        return lambda noise: _JITTER * noise
    factor = _gain(official, name) / math.sqrt(math.prod(shape[1:]))
    return lambda noise: noise * factor


def _gain(official: dict[str, Any], name: str) -> float:
    gain = official.get("gain", official.get("fill", {}).get("gain", 1.0))
    if isinstance(gain, list):
        found = _first(gain, name)
        return 1.0 if found is None else found
    return math.sqrt(2) if gain == "sqrt(2)" else float(gain)


def _first(patterns: Any, name: str) -> float | None:
    return next((value for pattern, value in patterns if re.search(pattern, name)), None)


def _shared_names(official: dict[str, Any]) -> dict[str, str]:
    """Return {name: the name it is drawn as}: tensors that are one and the same go by the first of their names."""
    groups: dict[str, list[str]] = {}
    for later, earlier in official.get("aliases_of_earlier_name", {}).items():
        groups.setdefault(earlier, [earlier]).append(later)
    return {name: min(group) for group in groups.values() for name in group}
