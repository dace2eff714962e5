"""Random numbers: functions of (seed, step, process), and none of the caller's are used up."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Give the caller's random state of torch, NumPy and `random` back when the block ends."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (recipes may draw from the global state)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def seed_start(seed: int) -> None:
    """Seed torch, NumPy and `random` for the model that a training starts from."""
    _seed([seed])
    torch.manual_seed(seed)


def seed_step(seed: int, step: int, process: int) -> None:
    """Seed torch, NumPy and `random` for one step, so that a resumed run draws what a straight one did."""
    torch.manual_seed(_seed([seed, step, process]))


def _seed(entropy: list[int]) -> int:
    first, second, third = (int(number) for number in np.random.SeedSequence(entropy).generate_state(3))
    np.random.seed(second)  # noqa: NPY002
    random.seed(third)
    return first
