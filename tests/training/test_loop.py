"""The loop in one process. Oracle: a training loop in plain torch, written out below."""

import math
import random
from collections import namedtuple
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from course_lib.training import Recipe, Row, train
from course_lib.training.batches import Steps, loader, moved
from tests.training.processes import same
from tests.training.toy import POINTS, Samples, Toy, target


def by_hand(recipe: Toy) -> tuple[nn.Module, list[Row]]:
    """What `train` promises, spelled out."""
    torch.manual_seed(recipe.seed)
    model = recipe.model()
    optimiser = recipe.optimiser(model)
    data = Samples(recipe.seed)
    rows: list[Row] = []
    losses: list[float] = []

    def validate() -> float:
        with torch.no_grad():
            return (model.eval()(POINTS) - target(POINTS)).abs().mean().item()

    rows.append({"step": 0, "error": validate()})
    for step in range(recipe.steps):
        samples = [data.sample(step * recipe.batch + j) for j in range(recipe.batch)]
        x, y = (torch.stack([s[key] for s in samples]) for key in "xy")
        for group, rate in zip(optimiser.param_groups, (recipe.rate, recipe.rate / 2), strict=True):
            group["lr"] = rate * (1 - step / recipe.steps)
        torch.manual_seed(int(np.random.SeedSequence([recipe.seed, step, 0]).generate_state(1)[0]))
        loss = (model.train()(x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % recipe.validate_every == 0 or step + 1 == recipe.steps:
            row = {"step": step + 1, "loss": sum(losses) / len(losses), "error": validate()}
            row["learning_rate"] = optimiser.param_groups[0]["lr"]
            rows.append(row)
            losses = []
    return model.eval(), rows


@pytest.mark.parametrize("recipe", [Toy(), Toy(clip=None, steps=7, seed=11), Toy(clip=0.05, batch=1)], ids=str)
def test_the_loop_is_the_plain_one(recipe: Toy) -> None:
    """Oracle: `by_hand`, to the bit: batches, seeds, schedule of two groups, clipping, means of rows, validation."""
    model, rows = by_hand(recipe)
    result = train(recipe, device="cpu", progress=False)
    assert same(dict(result.model.state_dict()), dict(model.state_dict()))
    assert [{key: row[key] for key in expected} for row, expected in zip(result.curve, rows, strict=True)] == rows
    assert list(result.curve[0]) == ["step", "seconds", "cpu_seconds", "error"]
    assert list(result.curve[1]) == ["step", "seconds", "cpu_seconds", "loss", "absolute", "learning_rate", "error"]
    assert (result.steps, result.recipe, result.path) == (recipe.steps, recipe, None)
    assert result.data == "points of a square"
    assert not result.model.training


def test_a_dropped_unit_and_a_clip_show() -> None:
    """The oracle above can fail: without dropout, and without clipping, the weights are others."""
    model, _ = by_hand(Toy(clip=0.05))
    for other in (Toy(clip=0.05, dropout=0.0), Toy(clip=None), Toy(clip=0.05, seed=4)):
        assert not same(dict(by_hand(other)[0].state_dict()), dict(model.state_dict()))


def test_nothing_outside_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """Oracle: all random states, the folder and both output streams before and after."""
    monkeypatch.chdir(tmp_path)
    np.random.seed(0)  # noqa: NPY002 (a state that no training leaves behind)
    random.seed(0)
    before = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
    train(Toy(), device="cpu", progress=False)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (repr(np.random.get_state()), random.getstate()) == before[1:]  # noqa: NPY002
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_rows_are_reported_and_written(tmp_path: Path) -> None:
    """Oracle: the result's curve; curve.csv holds the same numbers, an empty cell where a row has none."""
    seen: list[Row] = []
    result = train(Toy(), tmp_path / "a" / "b", device="cpu", progress=False, on_row=seen.append)
    assert seen == result.curve
    head, first, *rest = (tmp_path / "a" / "b" / "curve.csv").read_text(encoding="utf-8").splitlines()
    names = head.split(",")
    assert names == ["step", "seconds", "cpu_seconds", "loss", "learning_rate", "error", "absolute"]
    assert first.split(",")[3:5] == ["", ""]
    assert [[float(cell) for cell in line.split(",")] for line in rest] == [
        [row[name] for name in names] for row in result.curve[1:]
    ]
    assert result.path == tmp_path / "a" / "b" / "checkpoint.pt"
    seconds = [row["seconds"] for row in result.curve]
    assert seconds == sorted(seconds)
    assert result.seconds >= seconds[-1] - 0.001  # rows are rounded to a millisecond


@pytest.mark.parametrize(("batch", "world"), [(12, 1), (12, 2), (12, 3), (12, 12)])
def test_every_number_of_processes_sees_the_same_batch(batch: int, world: int) -> None:
    """Oracle: step s has the samples s * batch ... s * batch + batch - 1, once, in order."""
    shares = [list(Steps(5, 9, batch, rank, world)) for rank in range(world)]
    for step in range(5, 9):
        together = [index for share in shares for index in share[step - 5]]
        assert together == list(range(step * batch, (step + 1) * batch))
    assert {len(Steps(5, 9, batch, rank, world)) for rank in range(world)} == {4}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_change_nothing() -> None:
    """Oracle: the batches of one process, to the bit."""
    recipe = Toy(steps=5)
    batches = [list(loader(recipe, recipe.data(), Steps(1, 5, 4), workers, pin=False)) for workers in (0, 2)]
    assert same(*batches)
    assert len(batches[0]) == 4


Pair = namedtuple("Pair", "low high")


@dataclass(frozen=True)
class Boxes:
    """A batch of a detector, say."""

    images: Tensor
    boxes: list[Tensor]
    names: str


def test_batches_of_any_shape_reach_the_device() -> None:
    """Oracle: the same nesting by hand; the device `meta` shows what has been moved."""
    t = torch.zeros(2)
    batch = {"a": (t, [t, 1]), "b": Pair(t, "x"), "c": Boxes(t, [t, t], "n"), "d": None}
    there = moved(batch, torch.device("meta"))
    assert isinstance(there["b"], Pair)
    assert isinstance(there["c"], Boxes)
    tensors = [there["a"][0], there["a"][1][0], there["b"].low, there["c"].images, *there["c"].boxes]
    assert {x.device.type for x in tensors} == {"meta"}
    assert (there["a"][1][1], there["b"].high, there["c"].names, there["d"]) == (1, "x", "n", None)
    assert t.device.type == "cpu"


@dataclass(frozen=True, kw_only=True)
class Watched(Toy):
    """Notes in which state the model is asked."""

    def loss(self, model: Any, batch: Any) -> Tensor:
        assert model.training
        assert torch.is_grad_enabled()
        return model(batch["x"]).mean()

    def validate(self, model: Any) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        return {}


def test_modes_and_a_plain_scalar_loss() -> None:
    """Oracle: the assertions of `Watched`; a loss without logs is enough, a row without validation too."""
    result = train(Watched(), device="cpu", progress=False)
    assert [row["step"] for row in result.curve] == [0, 2, 4, 6, 8, 10, 12]
    assert "loss" in result.curve[-1]


@dataclass(frozen=True, kw_only=True)
class Types(Toy):
    """Logs in which arithmetic the layers and the loss were computed."""

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        inner = model[0](batch["x"])
        found = {"layer_bits": inner.dtype.itemsize, "input_bits": batch["x"].dtype.itemsize}
        loss = torch.nn.functional.mse_loss(model(batch["x"]), batch["y"])
        return loss, {name: torch.tensor(8.0 * size) for name, size in found.items()}


@pytest.mark.parametrize(("precision", "bits"), [("32-true", 32), ("bf16-mixed", 16)])
def test_precision(precision: Any, bits: int) -> None:
    """Oracle: the width of a layer's output; inputs (coordinates, boxes) and weights keep their 32 bits."""
    result = train(Types(steps=2), device="cpu", precision=precision, progress=False)
    assert result.curve[-1]["layer_bits"] == bits
    assert result.curve[-1]["input_bits"] == 32
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}
    full = train(Types(steps=2), device="cpu", progress=False).curve[-1]["loss"]
    assert result.curve[-1]["loss"] == pytest.approx(full, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps of the recipe toy must be a whole number >= 1, got 0"),
        ({"batch": 2.0}, "batch of the recipe toy must be a whole number >= 1, got 2.0"),
        ({"seed": -1}, "seed of the recipe toy must be a whole number >= 0, got -1"),
        ({"validate_every": True}, "validate_every of the recipe toy must be a whole number >= 1, got True"),
        ({"checkpoint_every": 0}, "checkpoint_every of the recipe toy must be a whole number >= 1, got 0"),
        ({"clip": 0.0}, "clip of the recipe toy must be a positive number, got 0.0"),
        ({"clip": math.nan}, "clip of the recipe toy must be a positive number, got nan"),
        ({"clip": True}, "clip of the recipe toy must be a positive number, got True"),
        ({"name": "a/b"}, "it names a folder"),
    ],
)
def test_recipes_refuse_fields(changes: dict[str, Any], message: str) -> None:
    """Oracle: the field, what came and what was expected."""
    with pytest.raises(ValueError, match="got") as caught:
        replace(Toy(), **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda, got 'gpu'"),
        ({"precision": "64-true"}, "precision must be one of 32-true, bf16-mixed, 16-mixed, got '64-true'"),
        ({"precision": "16-mixed"}, '"16-mixed" needs device "cuda"'),
        ({"workers": -1}, "workers must be at least 0, got -1"),
    ],
)
def test_train_refuses_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Oracle: the message; no folder was made."""
    with pytest.raises(ValueError, match=r"got|needs") as caught:
        train(Toy(), tmp_path / "run", progress=False, **{"device": "cpu", **options})
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["loss", "step", "learning_rate"])
def test_columns_of_the_curve_are_not_taken(name: str) -> None:
    """Oracle: the method and the name; a second "loss" would be added to the first without a word."""

    class Logs(Toy):
        def loss(self, model: Any, batch: Any) -> Any:
            loss, _ = super().loss(model, batch)
            return loss, {name: loss}

    class Measures(Toy):
        def validate(self, model: Any) -> dict[str, float]:
            return {name: 1.0}

    for recipe, method in ((Logs(), "loss"), (Measures(), "validate")):
        with pytest.raises(ValueError, match=f"^{method} of the recipe toy returns '{name}', which the curve has"):
            train(recipe, device="cpu", progress=False)


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: where the weights are; the message."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = train(Toy(steps=1), progress=False)
    assert next(result.model.parameters()).device.type == "cpu"
    with pytest.raises(ValueError, match="no NVIDIA graphics card"):
        train(Toy(steps=1), device="cuda", progress=False)


def test_fields_are_what_a_file_holds() -> None:
    """Oracle: JSON's types by hand; what changes no number is left out."""
    fields = Toy(about="x").fields()
    assert fields["sizes"] == [2, 8, 1]
    assert not {"about", "checkpoint_every"} & set(fields)
    assert issubclass(Toy, Recipe)


def test_contexts_of_the_caller_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the messages; inside autocast "32-true" would train with rounded weights that are never renewed."""
    monkeypatch.chdir(tmp_path)
    with torch.autocast("cpu"), pytest.raises(ValueError, match=r"call it outside torch\.autocast"):
        train(Toy(), "run", device="cpu", progress=False)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, pytest.raises(ValueError, match=r"outside torch\.no_grad and torch\.inference_mode"):
            train(Toy(), "run", device="cpu", progress=False)
    with pytest.raises(ValueError, match="folder must name a folder, or be None to keep nothing, got ''"):
        train(Toy(), "", device="cpu", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_what_a_recipe_has_frozen_stays_so() -> None:
    """Oracle: a normalisation in eval mode keeps its statistics; a model that is in eval mode as a whole is refused."""

    class Frozen(Toy):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8).eval(), nn.Dropout(0.5), nn.Linear(8, 1))

        def loss(self, model: Any, batch: Any) -> Any:
            assert [part.training for part in model] == [True, False, True, True]
            return super().loss(model, batch)

    model: Any = train(Frozen(), device="cpu", progress=False).model
    assert int(model[1].num_batches_tracked) == 0

    class Asleep(Toy):
        def model(self) -> nn.Module:
            return super().model().eval()

    with pytest.raises(ValueError, match=r"model\(\) of the recipe toy returns a model in eval mode"):
        train(Asleep(), device="cpu", progress=False)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda loss: loss.repeat(4), r"a scalar tensor.*got torch.float32 of shape \(4,\)"),
        (lambda loss: loss.item(), "a scalar tensor.*got float"),
        (lambda loss: (loss, {"two": loss.repeat(2)}), r"numbers, 'two' is a torch.float32 of shape \(2,\)"),
        (lambda loss: (loss, {"word": "1"}), "'word' is a str"),
    ],
)
def test_a_loss_is_a_scalar(result: Any, message: str) -> None:
    """Oracle: the recipe, what came and what was expected."""

    class Odd(Toy):
        def loss(self, model: Any, batch: Any) -> Any:
            return result(super().loss(model, batch)[0])

    with pytest.raises(TypeError, match=f"^loss of the recipe toy must .*{message}"):
        train(Odd(), device="cpu", progress=False)


def test_numbers_that_are_logged() -> None:
    """Oracle: means by hand; what is not finite leaves its cell empty, so that a curve can be recorded as JSON."""

    class Logs(Toy):
        def loss(self, model: Any, batch: Any) -> Any:
            loss = super().loss(model, batch)[0]
            return loss, {"half": 0.5, "small": np.float32(0.25), "one": torch.ones(1, 1), "never": math.nan}

        def validate(self, model: Any) -> Any:
            return {"score": 2, "tensor": torch.tensor(3.0), "absent": math.nan}

    first, *rows = train(Logs(), device="cpu", progress=False).curve
    assert {key: first[key] for key in first if "seconds" not in key} == {"step": 0, "score": 2, "tensor": 3}
    for row in rows:
        assert (row["half"], row["small"], row["one"], row["score"]) == (0.5, 0.25, 1, 2)
        assert not {"never", "absent"} & set(row)

    class Text(Toy):
        def validate(self, model: Any) -> Any:
            return {"score": "good"}

    with pytest.raises(TypeError, match=r"^validate of the recipe toy must return numbers, 'score' is a str"):
        train(Text(), device="cpu", progress=False)
