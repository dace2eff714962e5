"""Stopping, killing and going on. Oracle: the straight run, to the bit."""

import io
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import zipfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.single_device import SingleDeviceStrategy

from course_lib import measurements
from course_lib.training import FolderInUse, NotResumable, Stopped, loop, processes, train
from course_lib.training.stop import StopRequest
from tests.training.processes import Interrupt, pipe, read, same, start, without_times
from tests.training.toy import Samples, Toy

LONG = Toy(steps=40, validate_every=1, checkpoint_every=3)
STOPPED = 7


def straight(recipe: Toy, folder: Path) -> dict[str, Any]:
    train(recipe, folder, device="cpu", progress=False)
    return read(folder)


def run(recipe: Toy, folder: Path, steps: Connection, workers: int, wait_at: int, go: Connection) -> None:
    """Train in a process of its own, telling the steps as they are done; after step `wait_at`, wait for a word."""
    torch.set_num_threads(1)
    # a forked worker sees that its training has gone; one that the server of these processes forks would not
    multiprocessing.set_start_method("fork", force=True)
    os.setsid()  # a group of its own, which can be signalled as a whole
    options: dict[str, Any] = {"device": "cpu", "progress": False, "workers": workers}

    def tell(row: dict[str, float]) -> None:
        steps.send(int(row["step"]))
        if row["step"] == wait_at:
            go.recv()

    try:
        train(recipe, folder, **options, on_row=tell)
    except Stopped:
        sys.exit(STOPPED)


def signalled_at(step: int, folder: Path, number: int, pause: float = 0.0, more: int = 0, workers: int = 0) -> Any:
    """Start or go on, send the signal to the whole group when `step` has been told, and return the exit code.

    The training takes at most `more` further steps before the signal has been sent, however long that takes.
    """
    (listener, teller), (word, go) = pipe(), pipe()
    process = start(run, LONG, folder, teller, workers, step + more, word)
    teller.close()
    while listener.recv() < step:
        pass
    process.join(pause)
    assert process.pid is not None
    os.killpg(process.pid, number)
    go.send("the signal is sent")
    process.join()
    return process.exitcode


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_anywhere_and_gone_on_with(tmp_path: Path, seed: int) -> None:
    """Oracle: the straight run. Several kills in one training, at random steps and moments within them."""
    choose = random.Random(seed)
    killed = [
        signalled_at(step, tmp_path / "run", signal.SIGKILL, choose.uniform(0, 0.01), more=2)
        for step in sorted(choose.sample(range(1, 38), 4))
    ]
    assert killed == [-signal.SIGKILL] * 4
    train(LONG, tmp_path / "run", device="cpu", progress=False)
    expected = straight(LONG, tmp_path / "straight")
    assert same(read(tmp_path / "run"), expected)
    # nothing else is left: no half file of a kill in the middle of writing
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".lock", "checkpoint.pt", "curve.csv"]
    curves = [(tmp_path / name / "curve.csv").read_text(encoding="utf-8").splitlines() for name in ("run", "straight")]
    assert [line.split(",")[3:] for line in curves[0]] == [line.split(",")[3:] for line in curves[1]]
    assert len(curves[0]) == 1 + 41


@pytest.mark.skipif(os.name != "posix", reason="needs groups of processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_lets_the_step_end(tmp_path: Path, number: int) -> None:
    """Oracle: the straight run without workers. A terminal and a cluster signal the worker processes as well."""
    assert signalled_at(7, tmp_path / "run", number, workers=1) == STOPPED
    assert read(tmp_path / "run")["step"] >= 7
    train(LONG, tmp_path / "run", device="cpu", progress=False)
    assert same(read(tmp_path / "run"), straight(LONG, tmp_path / "straight"))


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_worker_that_outlives_its_training_does_not_hold_the_folder(tmp_path: Path) -> None:
    """Oracle: a second training right after the first was killed alone; its worker notices within seconds."""
    (listener, teller), (word, go) = pipe(), pipe()
    process = start(run, LONG, tmp_path, teller, 1, 4, word)
    teller.close()
    while listener.recv() < 4:
        pass
    process.kill()
    process.join()
    go.close()  # the training waited for it until it was killed
    assert train(LONG, tmp_path, device="cpu", progress=False).steps == 40


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_asked_to_stop(tmp_path: Path, name: str) -> None:
    """Oracle: the checkpoint has the step at which the signal came; gone on with, it is the straight run."""
    number = signal.Signals[name]
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, number)]
    with pytest.raises(Stopped) as caught:
        train(LONG, tmp_path / "run", device="cpu", progress=False, on_row=Interrupt(5, number))
    assert (caught.value.number, caught.value.step, caught.value.steps) == (number, 5, 40)
    assert caught.value.path == tmp_path / "run" / "checkpoint.pt"
    assert read(tmp_path / "run")["step"] == 5
    assert str(caught.value) == f"stopped after step 5 of 40; {tmp_path / 'run' / 'checkpoint.pt'} is complete"
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, number)] == handlers
    train(LONG, tmp_path / "run", device="cpu", progress=False)
    assert same(read(tmp_path / "run"), straight(LONG, tmp_path / "straight"))


class Loud(Toy):
    """A loss whose gradients are large."""

    def loss(self, model: Any, batch: Any) -> Any:
        loss, logs = super().loss(model, batch)
        return 100 * loss, logs


def test_half_precision_keeps_its_scaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the straight run. Half precision is for GPUs; here torch's own emulation on the CPU takes their place.

    The first gradients, scaled by 2^16, overflow: the scaler skips that step and halves the scale, which is no error.
    """

    def launch(device: str, precision: Any) -> Fabric:
        plugins: Any = [processes._Mixed(precision, "cpu"), LightningEnvironment()]
        return Fabric(accelerator="cpu", devices=1, strategy=SingleDeviceStrategy(torch.device("cpu")), plugins=plugins)

    monkeypatch.setattr(loop, "launch", launch)
    options: dict[str, Any] = {"precision": "16-mixed", "progress": False}
    train(Loud(steps=24), tmp_path / "straight", **options)
    with pytest.raises(Stopped):
        train(Loud(steps=24), tmp_path / "run", **options, on_row=Interrupt(16))
    stopped = read(tmp_path / "run")["scaler"]
    assert stopped["scale"] < 2.0**16
    train(Loud(steps=24), tmp_path / "run", **options)
    assert same(read(tmp_path / "run"), read(tmp_path / "straight"))
    assert read(tmp_path / "run")["scaler"]["_growth_tracker"] > stopped["_growth_tracker"] > 0


def test_a_row_may_span_a_stop(tmp_path: Path) -> None:
    """Oracle: the straight run; the means of a row that was half summed when the training stopped."""
    recipe = Toy(steps=9, validate_every=4, checkpoint_every=100)
    done = []

    class Data:
        description = Samples.description

        def sample(self, index: int) -> Any:
            if index == 6 * recipe.batch and not done:
                done.append(signal.raise_signal(signal.SIGINT))
            return Toy.data(recipe).sample(index)

    class Interrupted(Toy):
        def data(self) -> Any:
            return Data()

    fields = {"steps": 9, "validate_every": 4, "checkpoint_every": 100}
    with pytest.raises(Stopped) as caught:
        train(Interrupted(**fields), tmp_path / "run", device="cpu", progress=False)  # type: ignore[arg-type]
    assert caught.value.step == 6
    assert read(tmp_path / "run")["summed"] == 2
    train(recipe, tmp_path / "run", device="cpu", progress=False)
    assert same(read(tmp_path / "run"), straight(recipe, tmp_path / "straight"))


def test_without_a_folder_a_stop_keeps_nothing() -> None:
    """Oracle: the message; Stopped is what a notebook knows as an interrupt."""
    with pytest.raises(KeyboardInterrupt, match=r"^stopped after step 3 of 40$"):
        train(LONG, device="cpu", progress=False, on_row=Interrupt(3, signal.SIGINT))


def test_the_second_signal_acts_at_once() -> None:
    """Oracle: Python's own KeyboardInterrupt; another thread and an ignored signal are left alone."""
    with StopRequest() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with StopRequest() as request:
            signal.raise_signal(signal.SIGTERM)
            assert request.number == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    result = []
    thread = threading.Thread(target=lambda: result.append(train(Toy(steps=2), device="cpu", progress=False)))
    thread.start()
    thread.join()
    assert result[0].steps == 2


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    """Oracle: the first result; the file keeps its bytes. `fresh` starts again and gives the same weights."""
    first = train(Toy(), tmp_path, device="cpu", progress=False)
    content = (tmp_path / "checkpoint.pt").read_bytes()
    second = train(Toy(), tmp_path, device="cpu", progress=False, on_row=lambda row: pytest.fail("a new row"))
    assert (tmp_path / "checkpoint.pt").read_bytes() == content
    assert second.curve == first.curve
    assert same(dict(second.model.state_dict()), dict(first.model.state_dict()))
    state = torch.load(tmp_path / "checkpoint.pt")
    assert (second.seconds, second.cpu_seconds) == (state["seconds"], state["cpu_seconds"])
    assert state["seconds"] == pytest.approx(first.seconds, abs=0.5)
    rows: list[Any] = []
    train(Toy(), tmp_path, device="cpu", progress=False, fresh=True, on_row=rows.append)
    assert len(rows) == len(first.curve)
    assert same(without_times(torch.load(tmp_path / "checkpoint.pt")), read(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed was 3 and is 4 now"),
        ({"sizes": (2, 9, 1)}, "sizes was [2, 8, 1] and is [2, 9, 1] now"),
        ({"steps": 20}, "steps was 12 and is 20 now"),
        ({"clip": None}, "clip was 1.0 and is None now"),
        ({"precision": "bf16-mixed"}, "precision was '32-true' and is 'bf16-mixed' now"),
    ],
)
def test_another_recipe_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Oracle: the message names the field; the checkpoint keeps its bytes. What changes no number is let through."""
    train(Toy(), tmp_path, device="cpu", progress=False)
    content = (tmp_path / "checkpoint.pt").read_bytes()
    precision = change.pop("precision", "32-true")
    with pytest.raises(NotResumable) as caught:
        train(Toy(**change), tmp_path, device="cpu", precision=precision, progress=False)
    assert message in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert (tmp_path / "checkpoint.pt").read_bytes() == content
    train(Toy(about="other words", checkpoint_every=5), tmp_path, device="cpu", progress=False)


def test_other_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the descriptions; a recipe that takes what the machine has may be the same and find other data."""
    train(Toy(), tmp_path, device="cpu", progress=False)
    monkeypatch.setattr(Samples, "description", "points of a circle")
    with pytest.raises(NotResumable, match="data was 'points of a square' and is 'points of a circle' now"):
        train(Toy(), tmp_path, device="cpu", progress=False)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    weights = torch.load(io.BytesIO(data))["model"]["0.weight"]
    place = data.index(weights.numpy().tobytes()) + 3
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def foreign(data: bytes) -> bytes:
    return saved({"weight": torch.zeros(3)})


def wicked(data: bytes) -> bytes:
    return pickle.dumps(print)


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def hollow(data: bytes) -> bytes:
    """A sound archive whose pickle names a storage as torch does not: an AssertionError of its reader."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"\x80\x02K\x01Q." if name.endswith("data.pkl") else old.read(name))
    return stream.getvalue()


def empty(data: bytes) -> bytes:
    return saved({"format": torch.load(io.BytesIO(data))["format"]})


@pytest.mark.parametrize(
    "damage", [cut, flip, foreign, wicked, hollow, empty, lambda data: b"", lambda data: b"garbage" * 99]
)
def test_a_damaged_checkpoint_is_an_error_that_says_so(tmp_path: Path, damage: Any) -> None:
    """Oracle: the kind of error and its sentence; the file is left as it is; `fresh` goes on without it."""
    train(Toy(), tmp_path, device="cpu", progress=False)
    path = tmp_path / "checkpoint.pt"
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(NotResumable, match=r"checkpoint.*--fresh") as caught:
        train(Toy(), tmp_path, device="cpu", progress=False)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == damaged
    train(Toy(), tmp_path, device="cpu", progress=False, fresh=True)


def test_a_model_that_has_changed_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: torch's own words for the tensors that do not fit, in one line."""
    train(Toy(), tmp_path, device="cpu", progress=False)
    monkeypatch.setattr(Toy, "model", lambda self: torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Linear(1, 1)))
    with pytest.raises(NotResumable, match="does not fit the model that toy makes now") as caught:
        train(Toy(), tmp_path, device="cpu", progress=False)
    assert "size mismatch" in str(caught.value)
    assert "\n" not in str(caught.value)


def hold(folder: Path, teller: Connection) -> None:
    from course_lib.training.checkpoint import alone

    with alone(folder):
        teller.send(1)
        threading.Event().wait()


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    """Oracle: a second process that holds the folder; when it is killed, the folder is free."""
    listener, teller = pipe()
    other = start(hold, tmp_path, teller)
    teller.close()
    listener.recv()
    try:
        with pytest.raises(FolderInUse, match="another training is writing"):
            train(Toy(), tmp_path, device="cpu", progress=False)
    finally:
        other.kill()
        other.join()
    assert train(Toy(), tmp_path, device="cpu", progress=False).steps == 12


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_go_on(tmp_path: Path) -> None:
    """Oracle: the straight run without workers; the batches that were made ahead of the stop are made again."""
    recipe = Toy(validate_every=1)
    with pytest.raises(Stopped):
        train(recipe, tmp_path / "run", device="cpu", progress=False, workers=2, on_row=Interrupt(5))
    train(recipe, tmp_path / "run", device="cpu", progress=False, workers=2)
    assert same(read(tmp_path / "run"), straight(recipe, tmp_path / "straight"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_asked_to_stop_in_the_last_step(tmp_path: Path, name: str) -> None:
    """Oracle: who asked hears of it, so that a loop over trainings ends; the training itself is finished."""
    number = signal.Signals[name]
    with pytest.raises(Stopped, match=r"^stopped after step 12 of 12; .*checkpoint\.pt is complete$") as caught:
        train(Toy(), tmp_path, device="cpu", progress=False, on_row=Interrupt(12, number))
    assert caught.value.number == number
    assert train(Toy(), tmp_path, device="cpu", progress=False, on_row=lambda row: pytest.fail("a step")).steps == 12


class Drawing(Toy):
    """A loss with chance from everywhere, as mixup and jittered boxes have it."""

    def loss(self, model: Any, batch: Any) -> Any:
        loss, logs = super().loss(model, batch)
        chance = torch.rand(()) + float(np.random.rand()) + random.random()  # noqa: NPY002
        return loss * chance, logs | {"chance": chance}

    def model(self) -> torch.nn.Module:
        model = super().model()
        chance = random.random() + float(np.random.rand())  # noqa: NPY002
        torch.nn.init.constant_(model.get_parameter("0.bias"), chance)
        return model


def test_chance_of_every_kind_goes_on(tmp_path: Path) -> None:
    """Oracle: the straight run; the caller has drawn other numbers before each of them."""
    recipe = Drawing(validate_every=1)
    for seed, name in enumerate(("run", "run", "straight")):
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            on_row = Interrupt(7 if seed == 0 else -1)
            train(recipe, tmp_path / name, device="cpu", progress=False, on_row=on_row)
        except Stopped:
            assert seed == 0
    assert same(read(tmp_path / "run"), read(tmp_path / "straight"))
    chances = [row["chance"] for row in read(tmp_path / "run")["rows"][1:]]
    assert len(set(chances)) == 12


def test_a_schedule_in_numpy_goes_on(tmp_path: Path) -> None:
    """Oracle: the straight run; torch's reader of weights alone refuses NumPy's numbers, and cos() of NumPy is one."""

    class Cosine(Toy):
        def factor(self, step: int) -> float:
            return 0.5 * (1 + np.cos(np.pi * step / self.steps))  # type: ignore[no-any-return]

    recipe = Cosine(validate_every=1)
    with pytest.raises(Stopped):
        train(recipe, tmp_path / "run", device="cpu", progress=False, on_row=Interrupt(6))
    train(recipe, tmp_path / "run", device="cpu", progress=False)
    assert same(read(tmp_path / "run"), straight(recipe, tmp_path / "straight"))


def test_a_fresh_start_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    """Oracle: the former training does not come back; a kill is an error that nobody catches, before any checkpoint."""

    class Killed(BaseException):
        pass

    def kill(row: dict[str, float]) -> None:
        raise Killed

    train(Toy(), tmp_path, device="cpu", progress=False)
    with pytest.raises(Killed):
        train(Toy(), tmp_path, device="cpu", progress=False, fresh=True, on_row=kill)
    assert read(tmp_path)["step"] == 0
    rows: list[Any] = []
    train(Toy(), tmp_path, device="cpu", progress=False, on_row=rows.append)
    assert [row["step"] for row in rows] == [0, 2, 4, 6, 8, 10, 12]


def test_fields_that_change_no_number_may_change(tmp_path: Path) -> None:
    """Oracle: gone on with; an aim is only told, also where a former checkpoint has kept it."""

    @dataclass(frozen=True, kw_only=True)
    class Aiming(Toy):
        aim: float | None = None

    train(Aiming(), tmp_path, device="cpu", progress=False)
    state = torch.load(tmp_path / "checkpoint.pt")
    assert "aim" not in state["recipe"]
    state["recipe"]["aim"] = 32.2
    torch.save(state, tmp_path / "checkpoint.pt")
    assert train(Aiming(aim=3.0), tmp_path, device="cpu", progress=False).steps == 12


def test_other_threads_and_versions_are_told(tmp_path: Path) -> None:
    """Oracle: the warning, once, when steps are taken; the machines in order. A finished training is silent."""
    with pytest.raises(Stopped):
        train(Toy(), tmp_path, device="cpu", progress=False, on_row=Interrupt(4))
    torch.set_num_threads(2)
    with pytest.raises(Stopped), pytest.warns(UserWarning, match=r"^threads were 1 and are 2 now: the bits of toy"):
        train(Toy(), tmp_path, device="cpu", progress=False, on_row=Interrupt(8))
    train(Toy(), tmp_path, device="cpu", progress=False)
    torch.set_num_threads(1)
    machines = train(Toy(), tmp_path, device="cpu", progress=False).machines
    assert [(m["threads"], m["device"], m["processes"]) for m in machines] == [(1, "cpu", 1), (2, "cpu", 1)]
    assert machines[0]["versions"]["torch"] == torch.__version__
    assert machines[0]["hardware"] == measurements.hardware()
    assert len(train(Toy(), device="cpu", progress=False).machines) == 1
    state = torch.load(tmp_path / "checkpoint.pt")
    other = {**machines[0]["versions"], "torch": "1.0"}
    state |= {"step": 8, "machines": [{**machines[0], "versions": other}]}
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.warns(UserWarning, match=r"^versions were .*'torch': '1\.0'.* and are"):
        train(Toy(), tmp_path, device="cpu", progress=False)
