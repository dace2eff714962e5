"""Give a model weights by name, all of them and nothing else, or say everything that does not fit."""

import re
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

_SHOWN = 4


class Misfit(ValueError):
    """The weights are not this model's; the message names tensors that are missing, unexpected, misshapen, of another
    kind of number, or not numbers.
    """


def fit(
    model: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    official: Mapping[str, str] | None = None,
    may_be_absent: Collection[str] = (),
) -> None:
    """Copy the tensors of `state` into the model's of the same names, dtype and device being the model's.

    Arguments as in `check`. Nothing is copied unless all is right: raises Misfit as it does.
    """
    check(model, state, what, official, may_be_absent)
    model.load_state_dict({**model.state_dict(), **state})


def check(
    model: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    official: Mapping[str, str] | None = None,
    may_be_absent: Collection[str] = (),
) -> None:
    """Raise Misfit unless `state` holds the tensors of the model, which may be on the meta device.

    what: the name that messages call the model. official: {our name: official name}, for messages. may_be_absent:
    regular expressions of names that may keep what the architecture put there. The message lists together tensors that
    are missing, unexpected, misshapen, integers for floats or the reverse (or complex), and that hold NaN, the first
    few of each.
    """
    own = model.state_dict()
    shown = dict(official or {})
    missing = [
        shown.get(name, name)
        for name in own
        if name not in state and not any(re.search(pattern, name) for pattern in may_be_absent)
    ]
    unexpected = [shown.get(name, name) for name in state if name not in own]
    misshapen = [
        f"{shown.get(name, name)} is {tuple(state[name].shape)}, must be {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    both = {name: (state[name], tensor) for name, tensor in own.items() if name in state}
    mistyped = [
        f"{shown.get(name, name)} is {came.dtype}, must be {'floating point' if _float(tensor) else 'integers'}"
        for name, (came, tensor) in both.items()
        if came.is_complex() or _float(came) != _float(tensor)
    ]
    undefined = [shown.get(name, name) for name, (came, _) in both.items() if _has_nan(came)]
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    kinds |= {"of another kind of number": mistyped, "with NaN": undefined}
    wrong = [f"{len(found)} {kind}: {_shorten(found)}" for kind, found in kinds.items() if found]
    if wrong:
        raise Misfit(f"these are not the weights of {what}: {'; '.join(wrong)}")


def _float(tensor: Tensor) -> bool:
    return tensor.is_floating_point()


def _has_nan(tensor: Tensor) -> bool:
    return _float(tensor) and not tensor.is_meta and bool(torch.isnan(tensor).any())


def _shorten(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
