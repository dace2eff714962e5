"""The table of official checkpoints: for each name our model, and how its tensors are called there."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.official import (
    caffe,
    deformable,
    detr,
    dsod,
    dssd,
    edsr,
    espcn,
    liif,
    metasr,
    rdn,
    san,
    ssd_family,
    swin,
    ttsr,
    ttsr_discriminator,
    vidt,
    vit,
    yolos,
)
from course_lib.official.fitting import Misfit, fit
from course_lib.official.reading import read, unwrap
from course_lib.official.undrawn import Undrawn

_LOG = logging.getLogger(__name__)


def _same(name: str) -> str:
    return name


def _unchanged(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return state


@dataclass(frozen=True)
class Adapter:
    """How one official checkpoint becomes our model.

    build: makes our model with the official configuration. rename: official name of a tensor -> ours. fold: what
    several official tensors make together, before they are renamed; raises Misfit where one is missing. never_used:
    regular expressions of official names that the official code carries but never reads; they are accepted, and
    reported in the log. left_as_initialised: regular expressions of our names that may be absent.
    """

    build: Callable[[], nn.Module]
    rename: Callable[[str], str] = _same
    never_used: tuple[str, ...] = ()
    left_as_initialised: tuple[str, ...] = ()
    fold: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = _unchanged


_ADAPTERS: dict[str, Adapter] = {name: Adapter(build) for name, build in espcn.MODELS.items()}
_ADAPTERS |= {name: Adapter(build, edsr.RENAMES[name]) for name, build in edsr.MODELS.items()}
_ADAPTERS |= {name: Adapter(build, rdn.RENAMES[name]) for name, build in rdn.MODELS.items()}
_ADAPTERS |= {name: Adapter(build, liif.RENAMES[name], liif.NEVER_USED) for name, build in liif.MODELS.items()}
_ADAPTERS |= {
    name: Adapter(build, metasr.RENAMES[name], left_as_initialised=metasr.LEFT_AS_INITIALISED)
    for name, build in metasr.MODELS.items()
}
_ADAPTERS |= {
    name: Adapter(build, ttsr.RENAMES[name], ttsr.NEVER_USED, ttsr.LEFT_AS_INITIALISED)
    for name, build in ttsr.MODELS.items()
}
_ADAPTERS |= {
    name: Adapter(build, ttsr_discriminator.RENAMES[name]) for name, build in ttsr_discriminator.MODELS.items()
}
_ADAPTERS |= {name: Adapter(build, san.RENAMES[name], san.NEVER_USED) for name, build in san.MODELS.items()}
_ADAPTERS |= {
    name: Adapter(build, dsod.RENAMES[name], left_as_initialised=caffe.LEFT_AS_INITIALISED, fold=caffe.fold)
    for name, build in dsod.MODELS.items()
}
_ADAPTERS |= {
    name: Adapter(
        build,
        ssd_family.RENAMES[name],
        left_as_initialised=ssd_family.LEFT_AS_INITIALISED,
        fold=caffe.fold if name in ssd_family.CAFFE else _unchanged,
    )
    for name, build in ssd_family.MODELS.items()
}
_ADAPTERS |= {
    name: Adapter(build, dssd.RENAMES[name], left_as_initialised=caffe.LEFT_AS_INITIALISED, fold=caffe.fold)
    for name, build in dssd.MODELS.items()
}
_ADAPTERS |= {name: Adapter(build, detr.rename) for name, build in detr.MODELS.items()}
_ADAPTERS |= {
    name: Adapter(build, deformable.rename, fold=deformable.FOLDS[name]) for name, build in deformable.MODELS.items()
}
_ADAPTERS |= {name: Adapter(build, swin.rename, fold=swin.without_tables) for name, build in swin.MODELS.items()}
_ADAPTERS |= {name: Adapter(build, vit.rename) for name, build in vit.MODELS.items()}
_ADAPTERS |= {name: Adapter(build, vit.rename_flax, fold=vit.fold_flax) for name, build in vit.FLAX.items()}
_ADAPTERS |= {name: Adapter(build, yolos.rename) for name, build in yolos.MODELS.items()}
_ADAPTERS |= {
    name: Adapter(build, vidt.RENAMES[name], vidt.NEVER_USED, vidt.LEFT_AS_INITIALISED, vidt.fold)
    for name, build in vidt.MODELS.items()
}


def names() -> list[str]:
    """Return the names of the official checkpoints that `load` knows, sorted."""
    return sorted(_ADAPTERS)


def adapter(name: str) -> Adapter:
    """Return the adapter of a checkpoint. Raises ValueError for an unknown name."""
    if name not in _ADAPTERS:
        raise ValueError(f"name must be one of {', '.join(names())}; got {name!r}")
    return _ADAPTERS[name]


def load(name: str, weights: Mapping[str, Any] | str | os.PathLike[str]) -> nn.Module:
    """Return our model in eval mode with official weights, on the device of the weights.

    name: one of `names()`. weights: a file as `read` takes it, or what is in one (a state dict or its wrapper).
    Raises ValueError for an unknown name, what `read` raises for a file, and Misfit as `fit` does, and where two
    official names would become one of ours. The caller's random numbers stay as they were.
    """
    chosen = adapter(name)
    state = chosen.fold(unwrap(weights) if isinstance(weights, Mapping) else read(weights))
    unused = [key for key in state if any(re.search(pattern, key) for pattern in chosen.never_used)]
    if unused:
        _LOG.info("%s: %d tensors that the official code never uses were passed over: %s", name, len(unused), unused)
    ours: dict[str, str] = {}
    for key in state:
        if key not in unused and (other := ours.setdefault(chosen.rename(key), key)) != key:
            raise Misfit(f"these are not the weights of {name}: {other} and {key} both become {chosen.rename(key)}")
    with torch.random.fork_rng(devices=[]), Undrawn():  # what is drawn otherwise still leaves the caller's numbers
        model = chosen.build().to(next(iter(state.values())).device)
    renamed: dict[str, Tensor] = {our: state[key] for our, key in ours.items()}
    fit(model, renamed, name, official=ours, may_be_absent=chosen.left_as_initialised)
    return model.eval()
