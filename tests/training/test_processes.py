"""Several processes, started by torchrun. Oracle: one process with the same global batch, to float tolerance."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from course_lib.training.processes import launch, mean_over_processes
from tests.training import several
from tests.training.processes import start

ROOT = Path(__file__).resolve().parents[2]
# only this machine is spoken to, by its number: a name server is not needed
LOCAL = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Weights and curve to float tolerance: sums in another order."""
    for weights, wanted in zip(found["weights"], expected["weights"], strict=True):
        torch.testing.assert_close(torch.tensor(weights), torch.tensor(wanted), rtol=1e-5, atol=1e-6)
    for row, wanted in zip(found["curve"], expected["curve"], strict=True):
        assert row == pytest.approx(wanted, rel=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return several.attempt(several.Weighted(), tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What two processes of torchrun have written down."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr", "127.0.0.1", "--nproc-per-node", "2", several.__file__, str(folder)]
    environment = {**os.environ, **LOCAL, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "lightning" not in done.stderr
    assert "distributed_backend" not in done.stderr  # what Fabric tells about itself
    return folder, [json.loads((folder / rank / "found.json").read_text(encoding="utf-8")) for rank in "01"]


def test_two_processes_give_the_weights_of_one(together: Any, alone: dict[str, Any]) -> None:
    """Oracle: one process; a loss that is divided by the whole batch's count, momentum and clipping included."""
    _, found = together
    assert found[0]["weighted"] == found[1]["weighted"]
    assert_close(found[0]["weighted"], alone)
    # the comparison can fail: one process that sees only its half, or that does not average
    other = several.attempt(several.Weighted(batch=4), together[0] / "other")
    with pytest.raises(AssertionError):
        assert_close(found[0]["weighted"], other)


@pytest.mark.parametrize(
    ("what", "first", "second"),
    [
        (
            "data",
            "UnreadableData: weighted, step 7: another process cannot read its data",
            "UnreadableData: weighted, step 7: sample 63 cannot be read: OSError: the disk does not answer",
        ),
        ("loss", "Diverged: weighted, step 7: the loss is inf; this step was not taken", ""),
        ("signal", "Stopped: stopped after step 8 of 12", ""),
        ("validation", "CannotWrite: nothing can be measured", "OtherProcessFailed: nothing can be measured"),
        (
            "seeds",
            "ValueError: all processes must train the same: another process differs from the first",
            "ValueError: all processes must train the same: seed is 0 in the first process and 1 here",
        ),
        (
            "elsewhere",
            "ValueError: all processes must train the same: another process differs from the first",
            "ValueError: all processes must train the same: data is 'points of a square' in the first process and "
            "'points of a circle' here",
        ),
        (
            "idle",
            "ValueError: with several processes the loss must use every parameter that is trained, it does not",
            "",
        ),
        ("odd", "ValueError: batch of weighted is 9, not a multiple of 2 processes", ""),
        ("file", "FileExistsError: [Errno 17] File exists", "OtherProcessFailed: [Errno 17] File exists"),
    ],
)
def test_all_stop_when_one_must(together: Any, what: str, first: str, second: str) -> None:
    """Oracle: both end with their sentence; a process that waited for the other would have hung."""
    words = [f"{found[what]['error']}: {found[what]['message']}" for found in together[1]]
    assert words[0].startswith(first)
    assert words[1].startswith(second or first)


def test_all_go_on_from_what_the_first_has_read(together: Any, alone: dict[str, Any]) -> None:
    """Oracle: the straight run of two, to the bit; only the first process tells rows."""
    _, found = together
    for rank in (0, 1):
        assert found[rank]["resumed"] == found[rank]["weighted"]
        assert found[rank]["rows"] == {"steps": [10, 12] if rank == 0 else []}


def test_statistics_of_a_slice_are_told(together: Any, tmp_path: Path) -> None:
    """Oracle: one process, which takes other statistics; no word where there is nothing to tell, or from the second."""
    _, found = together
    words = "BatchNorm takes its statistics from each process's own slice of the batch: 2 processes do not give"
    assert [len(found[rank]["normed"]["warnings"]) for rank in (0, 1)] == [1, 0]
    assert found[0]["normed"]["warnings"][0].startswith(words)
    assert found[0]["frozen"]["warnings"] == found[0]["weighted"]["warnings"] == []
    one = several.attempt(several.Normed(), tmp_path / "normed")
    assert one["warnings"] == []
    with pytest.raises(AssertionError):
        assert_close(found[0]["normed"], one)
    assert_close(found[0]["frozen"], several.attempt(several.Normed(frozen=True), tmp_path / "frozen"))


def node(folder: Path, rank: int, world: int, local: int, port: int) -> None:
    """One process as torchrun starts it, by the variables that torchrun documents."""
    os.environ |= {
        **LOCAL,
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank % local),
        "LOCAL_WORLD_SIZE": str(local),
        "GROUP_RANK": str(rank // local),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    torch.set_num_threads(1)
    found = several.attempt(several.Weighted(), folder / "run")
    (folder / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")


def test_two_machines_of_two_processes(tmp_path: Path, alone: dict[str, Any]) -> None:
    """Oracle: one process; the machines are this one, twice."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # any free port
    processes = [start(node, tmp_path, rank, 4, 2, store.port) for rank in range(4)]
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()  # one that waits in vain would keep the tests from ending
    assert codes == [0] * 4
    for rank in range(4):
        assert_close(json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")), alone)


def test_uneven_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the message, before any process waits for another."""
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "3"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="as many processes as the others, got 3 in all and 2 on this one"):
        launch("cpu", "32-true")


def test_the_mean_over_one_process_is_the_value() -> None:
    """Oracle: the value, as a copy without gradient."""
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    mean = mean_over_processes(value)
    assert torch.equal(mean, value)
    assert not mean.requires_grad
    assert mean.data_ptr() != value.data_ptr()
