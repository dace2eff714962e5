"""How much memory a function takes: of a process of its own on a CPU, of the allocator on a GPU."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from course_lib.bench import attention_cases, detection_cases, reference_cases, second_order_cases, sr_cases
from course_lib.bench.timing import cpu_threads, fresh_memory

_CASES = {**sr_cases.CASES, **reference_cases.CASES, **second_order_cases.CASES, **detection_cases.CASES}
_CASES |= attention_cases.CASES
_MAIN = "from course_lib.bench.sr_memory import main; main()"


def extra_mib(case: str, form: str, threads: int, small: bool) -> float | None:
    """Return how far the memory of a fresh process rises while a case's form runs once on the CPU, in MiB.

    The same form ran before at a small size, so that code and threads are there. None where the system does not tell.
    Raises RuntimeError with the last line of the process where it failed.
    """
    words = [sys.executable, "-c", _MAIN, case, form, str(threads), str(int(small))]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = "".join(done.stderr.splitlines()[-1:]) or f"exit status {done.returncode}"
        raise RuntimeError(f"measuring the memory of {case}, {form}, failed: {last}")
    return float(done.stdout) if done.stdout.strip() else None


def main() -> None:
    """Print what `extra_mib` returns, in the process that it starts."""
    case, form, threads, small = sys.argv[1:]
    fresh_memory()  # else the heap keeps some of what is freed, by luck: 200 or 540 MiB for the same work
    with torch.no_grad(), cpu_threads(int(threads)):
        _CASES[case]("cpu", True).forms[form]()
        found = risen(_CASES[case]("cpu", bool(int(small))).for_memory(form))
    print("" if found is None else f"{found:.1f}")


def risen(function: Callable[[], Any]) -> float | None:
    """Return how far this process's memory rises above what it holds now while a function runs, in MiB, or None."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
        before = _resident("VmRSS")
        function()
        return (_resident("VmHWM") - before) / 1024
    except OSError:
        return None


def allocated(function: Callable[[], Any]) -> float:
    """Return how far CUDA's allocated memory rises while a function runs, in MiB."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
