"""Time several functions fairly: by turns, after a warm-up, by the median."""

import contextlib
import ctypes
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch


def check_device(device: str) -> None:
    """Raise ValueError unless `device` is "cpu" or "cuda" and there."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f'device must be "cpu" or "cuda", got {device!r}')
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError('device "cuda" is not there: PyTorch sees no CUDA device; use "cpu"')


def medians(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int,
    device: str = "cpu",
    done: Callable[[], Any] | None = None,
) -> dict[str, float]:
    """Return the median seconds of each function over `repeats` runs; the functions take turns in each repeat.

    One run of each comes before and is not counted (tables of weights, memory, CUDA kernels). On CUDA the clock waits
    for the device. `done` is called after each repeat. Raises ValueError for repeats < 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else _nothing
    for function in functions.values():
        function()
    wait()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            wait()
            seconds[name].append(time.perf_counter() - start)
        if done is not None:
            done()
    return {name: statistics.median(runs) for name, runs in seconds.items()}


def least(
    functions: Mapping[str, Callable[[], Any]], repeats: int, device: str = "cpu", seconds: float = 0.0
) -> dict[str, float]:
    """Return the least seconds of each function; they take turns, `repeats` times and until `seconds` are over.

    One run of each comes before and is not counted. A fast function runs up to 20 times in each turn but the first, so
    that it finds its own numbers in the cache, not its rival's. On CUDA the clock waits for the device. On a CPU with
    one thread it counts this process's own processor time, which work of others changes little. Raises ValueError for
    repeats < 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    cuda = torch.device(device).type == "cuda"
    wait = torch.cuda.synchronize if cuda else _nothing
    clock = time.perf_counter if cuda or torch.get_num_threads() > 1 else time.process_time
    for function in functions.values():
        function()
    wait()
    found = dict.fromkeys(functions, math.inf)
    begin, rounds = clock(), 0
    while rounds < repeats or clock() - begin < seconds:
        for name, function in functions.items():
            for _ in range(max(1, min(20, math.ceil(0.02 / max(found[name], 0.001))))):
                start = clock()
                function()
                wait()
                found[name] = min(found[name], clock() - start)
        rounds += 1
    return found


def _nothing() -> None:
    pass


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[int]:
    """Let PyTorch use `count` CPU threads inside the block (None: leave it), and yield how many it uses."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def fresh_memory() -> bool:
    """Tell glibc to give every large result of this process new pages from now on, and return whether it could.

    A system clears new pages before it hands them out, which costs more than copying the bytes. Whether a result reuses
    older pages instead is luck of the heap's state, and that luck would decide between rivals that do the same work.
    Does nothing on other systems.
    """
    map_from = -3  # M_MMAP_THRESHOLD of <malloc.h>; setting it also stops glibc from moving it
    try:
        library = ctypes.CDLL("libc.so.6")
        done = library.mallopt(map_from, 2**20)
        library.malloc_trim(0)
    except (OSError, AttributeError):
        return False
    return bool(done)
