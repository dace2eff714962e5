"""Tell by names and shapes of tensors which official checkpoint a file is."""

import functools
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.official.adapters import adapter, names
from course_lib.official.fitting import Misfit, check
from course_lib.official.reading import contents, unwrap

_NEAREST = 3
_KINDS = {"liif": "LIIF", "metasr": "MetaSR"}
_SWITCHES = {"local_ensemble": "local_ensemble", "feat_unfold": "feature_unfolding", "cell_decode": "cell_decoding"}


def recognise(weights: Mapping[str, Any] | str | os.PathLike[str]) -> str:
    """Return the name of the official checkpoint that has just these tensors, by name and shape.

    weights: a file as `read` takes it, or what is in one. What LIIF's wrapper {"model": {"name", "args", "sd"}} says
    beside the tensors must agree too. Raises what `read` raises, and Misfit where no checkpoint has these tensors (the
    message lists the nearest, and what differs) or more than one.
    """
    whole = weights if isinstance(weights, Mapping) else contents(weights)
    found = candidates(whole)
    if len(found) > 1:
        raise Misfit(f"these weights fit {' and '.join(found)}; say which of them is meant")
    if not found:
        raise Misfit(_nearest(*_inside(whole)))
    return found[0]


def candidates(whole: Mapping[str, Any]) -> list[str]:
    """Return the names of all official checkpoints that have just these tensors, sorted; arguments as in `recognise`.

    Raises UnreadableCheckpoint where something stands in place of a tensor.
    """
    state, spec = _inside(whole)
    return [name for name in names() if not _difference(name, state, spec)]


def _inside(whole: Any) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the tensors without their numbers by official name, and {"name", "args"} of LIIF's wrapper or nothing."""
    spec = whole.get("model") if isinstance(whole, Mapping) else None
    described = isinstance(spec, Mapping) and isinstance(spec.get("args"), Mapping) and "sd" in spec
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in unwrap(whole).items()}
    return state, spec if described and spec is not None else {}


@functools.cache
def _made(name: str) -> nn.Module:
    """Return our model of a checkpoint without any numbers in it."""
    with torch.device("meta"):
        return adapter(name).build()


def _ours(name: str, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return {our name: official name} of the tensors that a checkpoint uses."""
    chosen = adapter(name)
    return {
        chosen.rename(key): key for key in state if not any(re.search(pattern, key) for pattern in chosen.never_used)
    }


def _difference(name: str, state: Mapping[str, Tensor], spec: Mapping[str, Any]) -> str:
    """Return what hinders these tensors, used as the wrapper says, from being a checkpoint's: "" where nothing does."""
    model = _made(name)
    try:
        folded = adapter(name).fold(state)
        official = _ours(name, folded)
        renamed = {ours: folded[key] for ours, key in official.items()}
        check(model, renamed, name, official, adapter(name).left_as_initialised)
    except Misfit as error:
        return str(error).partition(": ")[2]
    kind = _KINDS.get(str(spec.get("name")), type(model).__name__)
    if kind != type(model).__name__:
        return f"its wrapper says {kind}"
    told = {ours: spec["args"][theirs] for theirs, ours in _SWITCHES.items() if theirs in spec.get("args", {})}
    other = [ours for ours, value in told.items() if getattr(model, ours, value) != value]
    return f"its wrapper says another {' and '.join(other)}" if other else ""


def _nearest(state: Mapping[str, Tensor], spec: Mapping[str, Any]) -> str:
    """Return a sentence about the checkpoints that have most of the tensors."""
    alike = {}
    for name in names():
        own = {key: tensor.shape for key, tensor in _made(name).state_dict().items()}
        try:
            folded, unfolded = adapter(name).fold(state), 0
        except Misfit:
            folded, unfolded = state, 1
        came = {ours: folded[key].shape for ours, key in _ours(name, folded).items()}
        alike[name] = sum(own.get(key) == shape for key, shape in came.items()) / (
            len(own.keys() | came.keys()) + unfolded
        )
    nearest = sorted((name for name in alike if alike[name] > 0), key=lambda name: -alike[name])[:_NEAREST]
    if not nearest:
        shown = ", ".join(list(state)[:3])
        return f"no official checkpoint has tensors of these names ({shown}); known are {', '.join(names())}"
    listed = " | ".join(f"{name}: {_difference(name, state, spec)}" for name in nearest)
    return f"these are not the weights of an official checkpoint; the nearest: {listed}"
