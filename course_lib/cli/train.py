"""`course train` and `course recipes`. Heavy imports wait inside, so that --help answers at once."""

import enum
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from course_lib.cli.errors import one_line_errors
from course_lib.cli.options import whole

if TYPE_CHECKING:
    from course_lib.training import Recipe, Result, Row


class Device(enum.StrEnum):
    """Where to train."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(enum.StrEnum):
    """Arithmetic of the network: weights are float32 in each."""

    full = "32-true"
    bfloat16 = "bf16-mixed"
    float16 = "16-mixed"


def recipes() -> None:
    """List what can be trained.

    \b
      course recipes
    """
    with one_line_errors():
        from course_lib.training import recipes as known

        for name in known.names():
            recipe = known.get(name)
            typer.echo(f"{name:<24} {recipe.steps} steps of {recipe.batch}  {recipe.about}")


def train(
    name: Annotated[str, typer.Argument(help="A recipe; see course recipes.", metavar="NAME")],
    folder: Annotated[Path | None, typer.Option(help="For checkpoint.pt and curve.csv; default runs/NAME.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of the recipe's own number.", **whole(1))] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's own.", **whole(0))] = None,
    device: Annotated[Device, typer.Option(help="auto takes a GPU where there is one.")] = Device.auto,
    precision: Annotated[
        Precision, typer.Option(help="32-true, or mixed: bf16-mixed, 16-mixed (GPU only).")
    ] = Precision.full,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that make batches ahead; default: none on a CPU, else up to 8.", **whole(0)),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again, even if the folder has a checkpoint.")] = False,
    save: Annotated[
        bool,
        typer.Option(
            "--save", help="Record the curve: data/measurements/train_NAME.json (with --seed 1: train_NAME_seed1)."
        ),
    ] = False,
) -> None:
    """Train a model as its recipe says.

    \b
      course train espcn-x3
      course train espcn-x3 --seed 1 --folder runs/espcn-x3-seed1 --save
      torchrun --nproc-per-node 4 --no-python course train espcn-x3 --precision bf16-mixed

    The same command goes on where it stopped: after Ctrl-C, after a kill, after a power cut. On a CPU the result has
    the same bits as without the stop, with the same number of threads and the same version of PyTorch.

    Several processes of torchrun give the weights of one, to rounding. Where the model has BatchNorm they do not,
    because each takes its statistics from its own share of the batch; a warning says so.
    """
    with one_line_errors():
        from course_lib import training

        recipe, changes = _asked_for(name, steps=steps, seed=seed)
        place = folder or Path("runs") / name
        first = os.environ.get("RANK", "0") == "0"
        try:
            result = training.train(
                recipe,
                place,
                device=device.value,
                precision=precision.value,
                workers=workers,
                fresh=fresh,
                progress=sys.stderr.isatty(),
                on_row=lambda row: _show(recipe, row),
            )
        except training.Stopped as stop:
            if first:
                typer.echo(f"{stop}; the same command without --fresh goes on from there", err=True)
            raise typer.Exit(128 + stop.number if stop.number else 130) from None
        except (training.Diverged, training.OtherProcessFailed) as error:
            raise ValueError(str(error)) from error
        if first:
            typer.echo(f"{place}: {result.steps} steps, {result.seconds:.0f} s ({result.cpu_seconds:.0f} CPU seconds)")
            if save:
                _record(result, precision.value, changes)


def _asked_for(name: str, **wishes: int | None) -> tuple["Recipe", dict[str, int]]:
    """Return a recipe with what was asked for in place of its own, and what of that differs from its own."""
    from course_lib.training import recipes as known

    listed = known.get(name)
    changes = {key: value for key, value in wishes.items() if value not in (None, getattr(listed, key))}
    return known.get(name, **changes), changes


def _show(recipe: "Recipe", row: "Row") -> None:
    from tqdm import tqdm  # type: ignore[import-untyped]

    values = "  ".join(f"{name} {value:.5g}" for name, value in row.items() if name not in ("step", "cpu_seconds"))
    tqdm.write(f"{recipe.name} step {row['step']:.0f}/{recipe.steps}  {values}")


def made(results: "list[Result]") -> tuple[dict[str, Any], str]:
    """Return where and when trainings were made, for a record: that of the last machine, and a sentence about others.

    A finished training may be recorded on another machine than its own.
    """
    machines = [machine for result in results for machine in result.machines]
    kinds = {f"{m['hardware']['gpu'] or m['hardware']['processor']}, torch {m['versions']['torch']}" for m in machines}
    several = f"; trained on several machines: {'; '.join(sorted(kinds))}" if len(kinds) > 1 else ""
    return {key: machines[-1][key] for key in ("hardware", "versions", "revision", "date")}, several


def _record(result: "Result", precision: str, changes: dict[str, Any]) -> None:
    from course_lib import measurements

    recipe = result.recipe
    fields = ", ".join(f"{key} {value}" for key, value in recipe.fields().items() if key != "name")
    last = result.machines[-1]
    circumstances, several = made([result])
    options = "".join(f" --{key} {value}" for key, value in changes.items())
    # the record of the recipe as it is listed belongs to the shipped weights
    name = "_".join(["train", recipe.name, *(f"{key}{value}" for key, value in changes.items())])
    path = measurements.write(
        name,
        {
            "curve": result.curve,
            "steps": result.steps,
            "seconds": round(result.seconds, 1),
            "cpu_seconds": round(result.cpu_seconds, 1),
        },
        command=f"course train {recipe.name}{options} --device {last['device']} --precision {precision} --save",
        protocol=f"recipe {recipe.name}: {fields}; {last['processes']} process(es); precision {precision}; "
        f"seconds are of the whole training with its validations; loss is the mean since the row before{several}",
        data=result.data,
        seed=recipe.seed,
        made=circumstances,
    )
    typer.echo(f"recorded: {path}")
