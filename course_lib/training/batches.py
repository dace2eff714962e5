"""Batches that depend on the step alone: sample j of step s has index s * batch + j, whoever asks and whenever."""

import dataclasses
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from course_lib.training.recipe import Data, Recipe
from course_lib.training.stop import SIGNALS


class UnreadableData(ValueError):
    """A sample could not be made; the message names it."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """The sample indices of one process: for each step from `first` on, slice `rank` of `world` of the batch."""

    first: int
    end: int
    batch: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.end - self.first

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of each step."""
        share = self.batch // self.world
        for step in range(self.first, self.end):
            start = step * self.batch + self.rank * share
            yield list(range(start, start + share))


class _Batches(Dataset[tuple[Any, str]]):
    """(batch, "") for a list of indices, or (None, what went wrong): an error must not kill a worker process, because
    then the training would know only that a worker has gone.
    """

    def __init__(self, recipe: Recipe, data: Data) -> None:
        self.recipe, self.data = recipe, data

    def __getitem__(self, indices: list[int]) -> tuple[Any, str]:
        samples = []
        for index in indices:
            try:
                samples.append(self.data.sample(index))
            except Exception as error:
                return None, f"sample {index} cannot be read: {type(error).__name__}: {error}"
        try:
            return self.recipe.collate(samples), ""
        except Exception as error:
            where = f"samples {indices[0]} to {indices[-1]}"
            return None, f"{where} cannot be put into one batch: {type(error).__name__}: {error}"


def _obey_the_parent_only(worker: int) -> None:
    # Ctrl-C and a cluster's SIGTERM reach the whole group; the training still needs the step it is in
    for number in (signal.Signals[name] for name in SIGNALS if hasattr(signal, name)):
        signal.signal(number, signal.SIG_IGN)


def loader(recipe: Recipe, data: Data, steps: Steps, workers: int, pin: bool) -> DataLoader[tuple[Any, str]]:
    """Return a loader of (batch, what went wrong or ""), one for each step.

    workers: processes that make batches ahead; 0 makes them in this one. pin: put them into memory that a GPU can fetch
    from by itself.
    """
    return DataLoader(
        _Batches(recipe, data),
        sampler=steps,  # with batch_size=None each element, a list of indices, goes to __getitem__ as it is
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_obey_the_parent_only if workers else None,
    )


def moved(batch: Any, device: torch.device) -> Any:
    """Return a batch with every tensor on `device`: nested tuples, lists, dictionaries and dataclasses are followed."""
    match batch:
        case Tensor():
            return batch.to(device, non_blocking=True)
        case Mapping():
            return {key: moved(value, device) for key, value in batch.items()}
        case list():
            return [moved(value, device) for value in batch]
        case tuple():
            parts = [moved(value, device) for value in batch]
            return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
        case _ if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
            fields = [field.name for field in dataclasses.fields(batch)]
            return dataclasses.replace(batch, **{name: moved(getattr(batch, name), device) for name in fields})
        case _:
            return batch
