"""Give a model weights by name, all of them and nothing else, or say everything that does not fit."""

import re
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor, nn

_SHOWN = 4


class Misfit(ValueError):
    """The weights are not this model's; the message names tensors that are missing, unexpected or misshapen."""


def fit(
    model: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    official: Mapping[str, str] | None = None,
    may_be_absent: Collection[str] = (),
) -> None:
    """Copy the tensors of `state` into the model's of the same names, dtype and device being the model's.

    what: the name that messages call the model. official: {our name: official name}, for messages. may_be_absent:
    regular expressions of names that may keep what the architecture put there. Nothing is copied unless all is right:
    raises Misfit, which lists missing, unexpected and misshapen tensors together, the first few of each.
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
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    wrong = [f"{len(found)} {kind}: {_shorten(found)}" for kind, found in kinds.items() if found]
    if wrong:
        raise Misfit(f"these are not the weights of {what}: {'; '.join(wrong)}")
    model.load_state_dict({**own, **state})


def _shorten(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
