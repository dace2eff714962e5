"""What goes wrong stops the training with a sentence, and the last checkpoint stays whole.

Oracle: the checkpoint's bytes before, and the straight run after the cause is gone.
"""

import errno
import math
import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from course_lib.files import CannotWrite
from course_lib.training import Diverged, FolderInUse, UnreadableData, train
from tests.training.processes import pipe, read, same, start
from tests.training.toy import Exploding, Toy


def remember(folder: Path, into: dict[int, bytes]) -> Any:
    """A row is there before the checkpoint of its step: keep what the former one was."""

    def on_row(row: dict[str, float]) -> None:
        if (folder / "checkpoint.pt").exists():
            into[int(row["step"])] = (folder / "checkpoint.pt").read_bytes()

    return on_row


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full from step 7 on: the checkpoint of step 6 stays, and is gone on with when there is room."""
    synced = os.fsync

    def full(row: dict[str, float]) -> None:
        if row["step"] == 8:
            monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))

    with pytest.raises(CannotWrite, match=r"no space left on the disk while writing .*checkpoint.pt"):
        train(Toy(), tmp_path / "run", device="cpu", progress=False, on_row=full)
    monkeypatch.setattr(os, "fsync", synced)
    assert read(tmp_path / "run")["step"] == 6
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".lock", "checkpoint.pt", "curve.csv"]
    train(Toy(), tmp_path / "run", device="cpu", progress=False)
    train(Toy(), tmp_path / "straight", device="cpu", progress=False)
    assert same(read(tmp_path / "run"), read(tmp_path / "straight"))


def limited(folder: Path, teller: Connection) -> None:
    """The system itself refuses to write more than 100 kB to a file from step 8 on; the file of step 6 has 1 MB."""
    import resource

    def on_row(row: dict[str, float]) -> None:
        if row["step"] == 8:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    try:
        train(Toy(sizes=(2, 20_000, 1)), folder, device="cpu", progress=False, on_row=on_row)
    except Exception as error:
        teller.send((type(error).__name__, str(error)))


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_file_that_the_system_cuts_off(tmp_path: Path) -> None:
    """Oracle: the system's own refusal (EFBIG), in a process of its own."""
    listener, teller = pipe()
    process = start(limited, tmp_path / "run", teller)
    teller.close()
    kind, message = listener.recv()
    process.join()
    assert kind == "CannotWrite"
    assert message.startswith("no space left on the disk while writing")
    assert read(tmp_path / "run")["step"] == 6
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".lock", "checkpoint.pt", "curve.csv"]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """Oracle: nothing is trained where nothing can be kept."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            train(Toy(), folder, device="cpu", progress=False, on_row=lambda row: pytest.fail("it began"))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_data(tmp_path: Path, workers: int) -> None:
    """Oracle: the index of the broken sample, its step (29 = 7 * 4 + 1) and its own words, in one line."""
    kept: dict[int, bytes] = {}
    with pytest.raises(UnreadableData) as caught:
        train(
            Toy(broken=29),
            tmp_path,
            device="cpu",
            progress=False,
            workers=workers,
            on_row=remember(tmp_path, kept),
        )
    assert str(caught.value) == "toy, step 7: sample 29 cannot be read: OSError: the disk does not answer"
    assert read(tmp_path)["step"] == 6
    assert kept.keys() == {0, 2, 4, 6}


def test_samples_that_fit_no_batch() -> None:
    """Oracle: the indices of the batch, and the collation's own words."""

    class Uneven(Toy):
        def collate(self, samples: Any) -> Any:
            raise RuntimeError("sizes 2 and 3 differ")

    with pytest.raises(UnreadableData) as caught:
        train(Uneven(), device="cpu", progress=False)
    words = "toy, step 0: samples 0 to 3 cannot be put into one batch: RuntimeError: sizes 2 and 3 differ"
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("value", "at", "message"),
    [
        (math.inf, "loss", "the loss is inf"),
        (math.nan, "loss", "the loss is nan"),
        (0.0, "gradient", "the norm of the gradients is nan"),
    ],
)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_divergence(tmp_path: Path, value: float, at: str, message: str, clip: float | None) -> None:
    """Oracle: the step of the divergence; the weights that are kept are finite, and those of the straight run."""
    recipe = Exploding(value=value, at=at, clip=clip, checkpoint_every=1)
    with pytest.raises(Diverged) as caught:
        train(recipe, tmp_path / "run", device="cpu", progress=False)
    assert str(caught.value).startswith(f"toy, step 7: {message}; this step was not taken")
    state = read(tmp_path / "run")
    assert state["step"] == 7
    calm = Exploding(value=1.0, clip=clip, checkpoint_every=1)
    stopped = train(calm, tmp_path / "straight", device="cpu", progress=False, on_row=_copy_at(tmp_path, 8))
    assert stopped.steps == 12
    expected = read(tmp_path / "copy")
    assert same(state["model"], expected["model"])
    assert same(state["optimiser"], expected["optimiser"])


def _copy_at(folder: Path, step: int) -> Any:
    """Keep the checkpoint of the step before `step`."""

    def on_row(row: dict[str, float]) -> None:
        if row["step"] == step:
            (folder / "copy").mkdir()
            content = (folder / "straight" / "checkpoint.pt").read_bytes()
            (folder / "copy" / "checkpoint.pt").write_bytes(content)

    return on_row


def test_a_validation_that_fails(tmp_path: Path) -> None:
    """Oracle: its own error; the former checkpoint is there."""

    class Failing(Toy):
        def validate(self, model: Any) -> dict[str, float]:
            if read(tmp_path)["step"]:
                raise FileNotFoundError("the set has gone")
            return {}

    with pytest.raises(FileNotFoundError, match="the set has gone"):
        train(Failing(), tmp_path, device="cpu", progress=False)
    assert read(tmp_path)["step"] == 3


class Spoiled(torch.optim.SGD):
    """Step `at` changes a parameter group or a weight as the caller says."""

    def __init__(self, weights: Any, spoil: Any, at: int) -> None:
        super().__init__(weights, lr=0.05)
        self.spoil, self.left = spoil, at

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        self.left -= 1
        if self.left == 0:
            self.spoil(self.param_groups[0])


@dataclass(frozen=True, kw_only=True)
class Leaping(Toy):
    """Step 8 makes a weight infinite, or would be taken with a learning rate that is none."""

    checkpoint_every: int = 1
    rates: bool = False
    at: int = 8

    def factor(self, step: int) -> float:
        return math.nan if self.rates and step == self.at - 1 else 1.0

    def optimiser(self, model: Any) -> torch.optim.Optimizer:
        at = -1 if self.rates else self.at
        return Spoiled(model.parameters(), lambda group: group["params"][0].data.fill_(math.inf), at)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        (True, "toy, step 7: the learning rate is nan; this step was not taken"),
        (False, "toy, step 8: the weight 0.weight is not finite; nothing was saved"),
    ],
)
def test_weights_that_diverge_are_not_kept(tmp_path: Path, rates: bool, words: str) -> None:
    """Oracle: the checkpoint of step 7 keeps its bytes and is finite, although no loss was ever seen to be infinite."""
    kept: dict[int, bytes] = {}
    with pytest.raises(Diverged) as caught:
        train(Leaping(rates=rates), tmp_path, device="cpu", progress=False, on_row=remember(tmp_path, kept))
    assert str(caught.value).startswith(words)
    assert "is unharmed" in str(caught.value)
    state = read(tmp_path)
    assert state["step"] == 7
    assert all(torch.isfinite(weight).all() for weight in state["model"].values())
    if 8 in kept:
        assert (tmp_path / "checkpoint.pt").read_bytes() == kept[8]


def test_weights_that_diverge_in_the_last_step_are_no_result() -> None:
    """Oracle: the error, although nothing is kept and no loss follows; a NaN among running statistics too."""
    with pytest.raises(Diverged, match=r"^toy, step 12: the weight 0\.weight is not finite; nothing was saved$"):
        train(Leaping(at=12), device="cpu", progress=False)

    class Statistics(Toy):
        def model(self) -> torch.nn.Module:
            norm = torch.nn.BatchNorm1d(2)
            norm.get_buffer("running_mean").fill_(math.nan)
            return torch.nn.Sequential(norm, torch.nn.Linear(2, 1))

    with pytest.raises(Diverged, match=r"^toy, step 0: the buffer 0\.running_mean is not finite"):
        train(Statistics(), device="cpu", progress=False)


@pytest.mark.parametrize("when", ["start", "later"])
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, when: str) -> None:
    """Oracle: torch's reader of weights alone refuses NumPy's numbers; the last good checkpoint stays."""

    class Numpy(Toy):
        def optimiser(self, model: Any) -> torch.optim.Optimizer:
            if when == "later":
                return Spoiled(model.parameters(), lambda group: group.update(momentum=np.float64(0.5)), 5)
            return torch.optim.AdamW(model.parameters(), lr=self.rate, betas=(np.float64(0.9), np.float64(0.99)))  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=r"^optimiser of toy holds more than tensors, numbers.*float\(\)"):
        train(Numpy(), tmp_path, device="cpu", progress=False)
    assert (read(tmp_path)["step"] == 3) if when == "later" else not (tmp_path / "checkpoint.pt").exists()


def test_a_folder_is_held_against_the_same_process_too(tmp_path: Path) -> None:
    """Oracle: the error of the inner training; the outer one ends, and then the folder is free."""
    refused = []

    def inner(row: dict[str, float]) -> None:
        (tmp_path / "other").mkdir(exist_ok=True)
        with pytest.raises(FolderInUse, match="another training is writing"):
            train(Toy(), tmp_path / "other" / ".." / "run", device="cpu", progress=False)
        refused.append(row["step"])

    train(Toy(), tmp_path / "run", device="cpu", progress=False, on_row=inner)
    assert refused == [0, 2, 4, 6, 8, 10, 12]
    assert train(Toy(), tmp_path / "run", device="cpu", progress=False).steps == 12
