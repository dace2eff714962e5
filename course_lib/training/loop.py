"""The training loop: one for every model of the book."""

import math
import os
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.optim import Optimizer
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from course_lib.files import check_writable
from course_lib.training import checkpoint, random_state
from course_lib.training.batches import Steps, UnreadableData, loader, moved
from course_lib.training.processes import (
    Device,
    Precision,
    check_alike,
    check_all_used,
    first_does,
    launch,
    machine,
    mean_over_processes,
    warn_of_batch_statistics,
)
from course_lib.training.recipe import Recipe, Result, Row
from course_lib.training.returned import Loss, check_named, not_finite
from course_lib.training.stop import Stopped, StopRequest


class Diverged(ArithmeticError):
    """A loss, a gradient, a learning rate or a weight was infinite or not a number; it is in no checkpoint."""


def train(
    recipe: Recipe,
    folder: str | os.PathLike[str] | None = None,
    *,
    device: Device = "auto",
    precision: Precision = "32-true",
    workers: int | None = None,
    fresh: bool = False,
    progress: bool = True,
    on_row: Callable[[Row], None] | None = None,
) -> Result:
    """Train as a recipe says, and go on where a former run in the same folder stopped.

    folder: for checkpoint.pt and curve.csv, made where missing; None keeps nothing. device: "auto" takes a GPU where
    there is one. precision: "32-true", or mixed "bf16-mixed", "16-mixed" (CUDA only). workers: processes that make
    batches ahead; default 0 on a CPU, else up to 8. fresh: begin at step 0 even if there is a checkpoint. progress:
    show a bar. on_row: called with every new row of the curve, in the first process.

    Started by torchrun, each process takes its share of every batch and gradients are averaged: the weights are those
    of one process, to rounding, unless the model takes statistics over its batch (BatchNorm: a warning says so). On a
    CPU a resumed run gives the bits of a straight one, with the same number of threads and the same version of torch.

    Raises Stopped (a KeyboardInterrupt) after Ctrl-C or SIGTERM, when the step is done and the checkpoint is written;
    UnreadableData; Diverged; NotResumable; FolderInUse; CannotWrite; OtherProcessFailed; ValueError for arguments, and
    where processes differ in recipe or data; TypeError for what a recipe returns. The last checkpoint is whole in each
    case.
    """
    _check_caller(folder)
    fabric = launch(device, precision)
    if recipe.batch % fabric.world_size:
        raise ValueError(f"batch of {recipe.name} is {recipe.batch}, not a multiple of {fabric.world_size} processes")
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = (min(8, cores) if fabric.device.type == "cuda" else 0) if workers is None else workers
    if workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers}")
    check_alike(fabric, recipe.fields() | {"precision": precision})
    place = None if folder is None else Path(folder)
    with ExitStack() as stack:
        former = None
        if place is not None:
            former = first_does(fabric, lambda: _open(place, recipe, precision, fresh, stack))
        stack.enter_context(random_state.kept(fabric.device))
        training = _Training(fabric, recipe, place, precision, on_row)
        if place is not None and former is not None:
            training.restore(place, former)
        return training.run(workers, progress and fabric.is_global_zero)


def _check_caller(folder: str | os.PathLike[str] | None) -> None:
    """Raise ValueError for an empty folder name, and inside contexts that would reach into every step."""
    if folder is not None and not os.fspath(folder):
        raise ValueError("folder must name a folder, or be None to keep nothing, got ''")
    if not torch.is_grad_enabled():
        raise ValueError("train needs gradients: call it outside torch.no_grad and torch.inference_mode")
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise ValueError("train has an argument for its precision: call it outside torch.autocast")


def _open(folder: Path, recipe: Recipe, precision: str, fresh: bool, stack: ExitStack) -> dict[str, Any] | None:
    """Hold the folder until `stack` closes, and return the state to go on from, if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / checkpoint.FILE)
    stack.enter_context(checkpoint.alone(folder))
    return None if fresh else checkpoint.load(folder, recipe, precision)


@dataclass
class _Progress:
    """What a checkpoint keeps beside the tensors: the steps taken, the curve, the sums for its next row, the time."""

    step: int = 0
    rows: list[Row] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    machines: list[dict[str, Any]] = field(default_factory=list)


class _Training:
    """Everything that is alive while a recipe trains."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        folder: Path | None,
        precision: str,
        on_row: Callable[[Row], None] | None,
    ) -> None:
        self.fabric, self.recipe, self.folder, self.precision = fabric, recipe, folder, precision
        self.on_row = on_row
        random_state.seed_start(recipe.seed)
        self.model = recipe.model()
        if not self.model.training:
            raise ValueError(f"model() of the recipe {recipe.name} returns a model in eval mode; parts of it may be")
        self.in_eval = [module for module in self.model.modules() if not module.training]
        warn_of_batch_statistics(fabric, self.model)
        self.optimiser: Optimizer = recipe.optimiser(self.model)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.loss, self.stepper = fabric.setup(Loss(recipe, self.model), self.optimiser)
        self.data = recipe.data()
        check_alike(fabric, {"data": self.data.description})
        self.progress = _Progress()
        self.started = (0.0, 0.0)

    def run(self, workers: int, show: bool) -> Result:
        """Take the steps that are left; time counts from here, when model and data are there."""
        recipe, progress = self.recipe, self.progress
        self.started = (time.perf_counter(), time.process_time())
        if progress.step < recipe.steps:
            self._steps(workers, show)
            progress.seconds, progress.cpu_seconds = self._clock()
        self.model.eval()
        return Result(
            recipe=recipe,
            model=recipe.finished(self.model),
            curve=progress.rows,
            steps=progress.step,
            seconds=progress.seconds,
            cpu_seconds=progress.cpu_seconds,
            data=self.data.description,
            path=self.folder / checkpoint.FILE if self.folder else None,
            machines=progress.machines,
        )

    def _steps(self, workers: int, show: bool) -> None:
        recipe, progress, fabric = self.recipe, self.progress, self.fabric
        self._note_machine()
        if not progress.rows:
            self._save()  # from now on a kill of a fresh start cannot bring the former training back
            self._add_row()
        steps = Steps(progress.step, recipe.steps, recipe.batch, fabric.global_rank, fabric.world_size)
        batches = loader(recipe, self.data, steps, workers, pin=fabric.device.type == "cuda")
        self._train_mode()
        bar = tqdm(total=recipe.steps, initial=progress.step, desc=recipe.name, unit=" steps", disable=not show)
        with bar, StopRequest() as request:
            for batch, failure in batches:
                self._agree(failure, request.number)
                loss = self._step(batch)
                progress.step += 1
                bar.set_postfix(loss=f"{loss:.3g}", refresh=False)
                bar.update()
                last = progress.step == recipe.steps
                if last or progress.step % recipe.validate_every == 0:
                    self._add_row()
                if last or progress.step % recipe.checkpoint_every == 0:
                    self._save()
            self._agree("", request.number)  # asked in the last step, or while it was measured

    def _note_machine(self) -> None:
        """Keep what takes the steps from here on; warn in the first process where a straight run has other bits."""
        here, machines = machine(self.fabric), self.progress.machines
        former = machines[-1] if machines else here
        if not machines or former | {"date": here["date"]} != here:
            machines.append(here)
        for name in ("threads", "versions"):
            if former[name] != here[name] and self.fabric.is_global_zero:
                change = f"{name} were {former[name]} and are {here[name]} now"
                warnings.warn(f"{change}: the bits of {self.recipe.name} will be others", stacklevel=2)

    def _step(self, batch: Any) -> float:
        """Take one step on a batch and return the loss before it, averaged over all processes."""
        step, fabric = self.progress.step, self.fabric
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = float(rate * self.recipe.factor(step))
            if not math.isfinite(group["lr"]):
                raise Diverged(self._diverged(f"the learning rate is {group['lr']}"))
        random_state.seed_step(self.recipe.seed, step, fabric.global_rank)
        loss, logs = self.loss(moved(batch, fabric.device))
        names = ["loss", *sorted(logs)]
        values = torch.stack([loss.detach(), *(logs[name].to(loss) for name in names[1:])])
        numbers: list[float] = mean_over_processes(values).tolist()
        if not math.isfinite(numbers[0]):
            raise Diverged(self._diverged(f"the loss is {numbers[0]}"))
        self.stepper.zero_grad()
        fabric.backward(loss)
        check_all_used(fabric, self.model)
        clip = self.recipe.clip or math.inf
        norm = fabric.clip_gradients(self.loss, self.stepper, max_norm=clip, error_if_nonfinite=False)
        # in half precision too large gradients are usual, and its loss scaler skips those steps by itself
        if self.precision != "16-mixed" and norm is not None and not math.isfinite(norm):
            raise Diverged(self._diverged(f"the norm of the gradients is {float(norm)}"))
        self.stepper.step()
        for name, number in zip(names, numbers, strict=True):
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + number
        self.progress.summed += 1
        return numbers[0]

    def _diverged(self, what: str, taken: str = "this step was not taken") -> str:
        kept = f"; the last checkpoint in {self.folder} is unharmed" if self.folder else ""
        return f"{self.recipe.name}, step {self.progress.step}: {what}; {taken}{kept}"

    def _train_mode(self) -> None:
        """Put the model into training mode, but for the parts that the recipe made in eval mode."""
        self.model.train()
        for module in self.in_eval:
            module.training = False

    def _agree(self, failure: str, number: int) -> None:
        """Stop all processes before a step when one of them was asked to (by signal `number`), or has no batch."""
        place = self.fabric.device if self.fabric.world_size > 1 else None  # alone, there is nobody to tell over a GPU
        flags = torch.tensor([bool(number), bool(failure)], dtype=torch.float32, device=place)
        stop, failed = mean_over_processes(flags).tolist()
        if failed:
            where = f"{self.recipe.name}, step {self.progress.step}"
            raise UnreadableData(f"{where}: {failure or 'another process cannot read its data'}")
        if stop:
            path = self._save() if self.folder else None
            raise Stopped(number, self.progress.step, self.recipe.steps, path)

    def _add_row(self) -> None:
        """Validate in the first process and add a row to the curve; the row of step 0 has no loss."""
        progress = self.progress
        measured = first_does(self.fabric, self._validated)
        seconds, cpu_seconds = self._clock()
        row: Row = {"step": progress.step, "seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)}
        if progress.summed:
            row |= {name: total / progress.summed for name, total in progress.sums.items()}
            row["learning_rate"] = float(self.optimiser.param_groups[0]["lr"])
        row = {name: value for name, value in (row | measured).items() if math.isfinite(value)}
        progress.rows.append(row)
        progress.sums, progress.summed = {}, 0
        if self.on_row is not None and self.fabric.is_global_zero:
            self.on_row(row)

    def _validated(self) -> dict[str, float]:
        self.model.eval()
        with torch.no_grad():
            values = check_named(self.recipe, "validate", self.recipe.validate(self.model))
        self._train_mode()
        return {name: float(value) for name, value in values.items()}

    def _clock(self) -> tuple[float, float]:
        """Return (seconds, CPU seconds) up to now, with those of former runs."""
        began, cpu_began = self.started
        return (
            self.progress.seconds + time.perf_counter() - began,
            self.progress.cpu_seconds + time.process_time() - cpu_began,
        )

    def _save(self) -> Path | None:
        """Write the checkpoint (first process), or nothing where there is no folder; raise Diverged first."""
        first_does(self.fabric, self._check_weights)
        folder = self.folder
        if folder is None:
            return None
        seconds, cpu_seconds = self._clock()
        state = vars(self.progress) | {"seconds": seconds, "cpu_seconds": cpu_seconds, "precision": self.precision}
        state |= {
            "data": self.data.description,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
        }
        return first_does(self.fabric, lambda: checkpoint.save(folder, state, self.recipe))

    def _check_weights(self) -> None:
        """Raise Diverged where a weight is not finite: a step with a finite gradient may have made it."""
        name = not_finite(self.model)
        if name:
            raise Diverged(self._diverged(f"{name} is not finite", "nothing was saved"))

    def restore(self, folder: Path, state: dict[str, Any]) -> None:
        """Go back to where a checkpoint was written."""
        # "where BSDS500 is at hand, it" is one recipe and two trainings
        checkpoint.check_same(folder, "data", state["data"], self.data.description)
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise checkpoint.NotResumable(
                f"the checkpoint in {folder} does not fit the model that {self.recipe.name} makes now: {text}"
            ) from error
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.progress = _Progress(**{each.name: state[each.name] for each in fields(_Progress)})
