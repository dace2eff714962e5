"""Real processes for the tests, forked from a clean server that has loaded torch, so that each starts at once; and
what tells two checkpoints apart.
"""

import dataclasses
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["course_lib.training"])


def start(target: Callable[..., Any], *args: Any) -> BaseProcess:
    process = _CONTEXT.Process(target=target, args=args)
    process.start()
    return process


def pipe() -> tuple[Connection, Connection]:
    return _CONTEXT.Pipe(duplex=False)


def same(a: Any, b: Any) -> bool:
    """Equal to the bit: nested dictionaries, lists and dataclasses of tensors and numbers."""
    import torch

    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and same(vars(a), vars(b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def without_times(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without what a clock has put into it."""
    clocks = ("seconds", "cpu_seconds")
    rows = [{key: value for key, value in row.items() if key not in clocks} for row in state["rows"]]
    machines = [{**machine, "date": ""} for machine in state["machines"]]
    return {key: value for key, value in state.items() if key not in clocks} | {"rows": rows, "machines": machines}


def read(folder: Path) -> dict[str, Any]:
    import torch

    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return without_times(state)


class Interrupt:
    """Sends a signal to this process when the row of a step is there."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.step, self.number = step, number

    def __call__(self, row: dict[str, float]) -> None:
        if row["step"] == self.step:
            signal.raise_signal(self.number)
