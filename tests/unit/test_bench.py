import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from course_lib.bench import resize as bench
from course_lib.bench.slider import _fresh
from course_lib.bench.timing import cpu_threads, least, medians


def test_medians_take_turns_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the order of the calls, and a clock that only the calls move."""
    calls: list[str] = []
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    durations = iter([9.0, 5.0, 1.0, 7.0])  # the first is the warm-up's; the median of the rest is 5

    def slow() -> None:
        calls.append("slow")
        clock[0] += next(durations)

    seconds = medians({"slow": slow, "fast": lambda: calls.append("fast")}, repeats=3)
    assert calls == ["slow", "fast"] * 4
    assert seconds == {"slow": 5.0, "fast": 0.0}
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        medians({}, 0)


@pytest.mark.parametrize(("threads", "name"), [(1, "process_time"), (2, "perf_counter")])
def test_least_takes_turns_until_time_is_over(monkeypatch: pytest.MonkeyPatch, threads: int, name: str) -> None:
    """Oracle: the order of the calls, and a clock that only the calls move: the processor's with one thread."""
    calls: list[str] = []
    clock = [0.0]
    monkeypatch.setattr(time, name, lambda: clock[0])
    durations = iter([1.0, 5.0, 3.0, 7.0])  # the first is the warm-up's, which does not count

    def slow() -> None:
        calls.append("slow")
        clock[0] += next(durations)

    with cpu_threads(threads):
        assert least({"slow": slow, "fast": lambda: calls.append("fast")}, 2) == {"slow": 3.0, "fast": 0.0}
        assert calls == ["slow", "fast"] * 2 + ["slow", *["fast"] * 20]
        durations = iter([1.0] * 9)
        calls.clear()
        least({"slow": slow}, 2, seconds=5)
    assert len(calls) == 6
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        least({}, 0)


def test_cpu_threads_are_given_back() -> None:
    """Oracle: torch's own count, even after an error."""
    before = torch.get_num_threads()

    def fail() -> None:
        with cpu_threads(1) as used:
            assert used == torch.get_num_threads() == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.get_num_threads() == before


def test_every_combination_is_timed_beside_a_rival_that_gives_the_same_size() -> None:
    """Oracle: the count 2 (3 + 2 x 2 x 3 x 3); ratios are times divided."""
    values = bench.run("cpu", 1, repeats=1, small=12)
    assert len(values["cases"]) == 78
    assert (
        len({tuple(row[k] for k in ("direction", "method", "antialias", "grid", "border")) for row in values["cases"]})
        == 78
    )
    assert set(values["rivals"]) == {"up", "down"}
    for times in values["rivals"].values():
        assert set(times) == {"ours_ms", "torch_ms", "pillow_ms", "scikit_image_ms", "ratio"}
    for row in values["cases"]:
        assert row["ours_ms"] > 0
        assert row["torch_ms"] > 0
    text = bench.table(values)
    assert text.count("\n  bicubic ") == 36
    worst = max(row["ratio"] for row in values["cases"])
    assert f"worst ratio: x{worst:.2f}" in text


@pytest.mark.parametrize("direction", ["up", "down"])
def test_rivals_do_the_same_work(direction: str) -> None:
    """Oracle: torch's antialiased bicubic is ours with the border renormalised; Pillow's to within its 8 bits."""
    picture = 0.3 + 0.4 * torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))  # nothing to clamp
    size = 64 if direction == "up" else 4
    made = {name: function() for name, function in bench._rivals(picture, size).items()}
    assert torch.allclose(made["ours"], made["torch"][0], atol=1e-5)
    eight_bit = np.asarray(made["pillow"]).astype(np.float32) / 255
    assert np.abs(eight_bit - made["ours"].clamp(0, 1).permute(1, 2, 0).numpy()).max() < 3 / 255
    assert made["scikit_image"].shape == (size, size, 3)


def test_a_missing_device_is_named() -> None:
    """Oracle: the message names what came."""
    with pytest.raises(ValueError, match="got 'tpu'"):
        bench.run("tpu", None, 1)


def test_the_slider_never_shows_a_picture_twice() -> None:
    """Oracle: all values but the start, each once, so that no cache can answer; more moves than values are refused."""
    assert sorted(_fresh([1, 2.2, 3.4, 5], 3.4, 3, seed=0)) == [1, 2.2, 5]
    with pytest.raises(ValueError, match=r"moves must be from 1 to 3.*got 4"):
        _fresh([1, 2.2, 3.4, 5], 3.4, 4, seed=0)


@pytest.mark.gpu
def test_bandwidth_on_cuda() -> None:
    """Oracle: a GPU copies between 50 GB/s and 20 TB/s."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    assert 5e10 < (bench._bandwidth("cuda") or 0) < 2e13


def _least_page_faults(first: str, **environment: str) -> int:
    """Page faults of making 2 results of 24 MiB, the least of 6 times, in a process that says `first` at its start."""
    code = (
        "import ctypes, resource, torch; from course_lib.bench.timing import fresh_memory\n"
        "ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)\n"  # PR_SET_THP_DISABLE: count small pages on every system
        f"{first}\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def make():\n"
        "    before = faults()\n"
        "    for _ in range(2): torch.ones(6 * 2**20)\n"
        "    return faults() - before\n"
        "print(min(make() for _ in range(6)))"
    )
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


@pytest.mark.xfail(not sys.platform.startswith("linux"), reason="only glibc lets a process choose", run=False)
def test_fresh_memory_is_fresh_every_time() -> None:
    """Oracle: the kernel's count of page faults, one for each page; under the opposite rule pages are used again."""
    pages = 2 * 24 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    reused = _least_page_faults("", MALLOC_MMAP_THRESHOLD_=str(2**25), MALLOC_TRIM_THRESHOLD_=str(2**30))
    assert _least_page_faults("assert fresh_memory()") >= pages > reused
