"""`course compare`: recipes against each other over several seeds. Heavy imports wait inside."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from course_lib.cli.errors import one_line_errors
from course_lib.cli.options import whole
from course_lib.cli.train import Device, Precision, made

if TYPE_CHECKING:
    from course_lib.training import Result, Row


GROUPS = {"classifiers": ("conv-scenes", "swin-scenes", "vit-scenes")}
"""Recipes that are compared with each other and have no common beginning of their names."""


def compare(
    family: Annotated[
        str, typer.Argument(help="All recipes called FAMILY-something; or classifiers.", metavar="FAMILY")
    ],
    seeds: Annotated[int, typer.Option(help="How many: 0, 1, 2 and so on.", **whole(1))] = 3,
    folder: Annotated[Path | None, typer.Option(help="For all trainings; default runs/compare-FAMILY.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of the recipes' own number.", **whole(1))] = None,
    device: Annotated[Device, typer.Option(help="auto takes a GPU where there is one.")] = Device.auto,
    precision: Annotated[
        Precision, typer.Option(help="32-true, or mixed: bf16-mixed, 16-mixed (GPU only).")
    ] = Precision.full,
    save: Annotated[
        bool, typer.Option("--save", help="Record means and spreads as data/measurements/compare_FAMILY.json.")
    ] = False,
) -> None:
    """Train all recipes of a family with several seeds and compare their last scores.

    \b
      course compare segment --save

    The same command goes on where it stopped; what is finished is not trained again.
    """
    with one_line_errors():
        from course_lib import training
        from course_lib.training import recipes as known

        names = [name for name in known.names() if name in GROUPS.get(family, ()) or name.startswith(f"{family}-")]
        if not names:
            raise ValueError(f"no recipe is called {family}-something; there are: {', '.join(known.names())}")
        place = folder or Path("runs") / f"compare-{family}"
        changes = {} if steps is None else {"steps": steps}
        results: dict[str, list[Result]] = {name: [] for name in names}
        for seed in range(seeds):
            for name in names:
                recipe = known.get(name, seed=seed, **changes)
                try:
                    done = training.train(
                        recipe,
                        place / f"{name}-seed{seed}",
                        device=device.value,
                        precision=precision.value,
                        progress=False,
                        on_row=functools.partial(_show, f"{name} seed {seed}"),
                    )
                except training.Stopped as stop:
                    typer.echo(f"{stop}; the same command goes on from there", err=True)
                    raise typer.Exit(128 + stop.number if stop.number else 130) from None
                except training.Diverged as error:
                    raise ValueError(str(error)) from error
                results[name].append(done)
        values = {name: summary([result.curve for result in some]) for name, some in results.items()}
        for name, found in values.items():
            for key, numbers in found["last"].items():
                typer.echo(f"{name:<24} {key:<18} {numbers['mean']:.4f} +- {numbers['spread']:.4f}")
        if save:
            from course_lib.cli import compare_classification, compare_detection

            more = compare_detection.complete(results, values) + compare_classification.complete(results, values)
            _record(family, results, values, changes, precision.value, more)


def _show(run: str, row: "Row") -> None:
    shown = {name: value for name, value in row.items() if name not in ("step", "cpu_seconds", "learning_rate")}
    values = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
    typer.echo(f"{run} step {row['step']:.0f}  {values}")


def summary(curves: "list[list[Row]]") -> dict[str, Any]:
    """Return, over the runs of one recipe: mean, spread and each run's value of everything in the last row, and the
    mean of every later row's.

    spread: the sample standard deviation (0 for one run). What a run does not have in a row (it was not finite) has no
    mean there; the last row lacks it, the curve has None.
    """
    import statistics

    ends = [curve[-1] for curve in curves]
    last = {}
    for key in ends[0]:
        if key not in ("step", "learning_rate") and all(key in end for end in ends):
            runs = [end[key] for end in ends]
            spread = statistics.stdev(runs) if len(runs) > 1 else 0.0
            last[key] = {"mean": statistics.fmean(runs), "spread": spread, "runs": runs}
    columns = [key for key in ends[0] if not key.endswith("seconds")]
    rows = list(zip(*(curve[1:] for curve in curves), strict=True))  # row 0 has no loss
    curve = {
        key: [statistics.fmean(r[key] for r in row) if all(key in r for r in row) else None for row in rows]
        for key in columns
    }
    return {"last": last, "curve": curve}


def _record(
    family: str,
    results: "dict[str, list[Result]]",
    values: dict[str, Any],
    changes: dict[str, Any],
    precision: str,
    more: str,
) -> None:
    from course_lib import measurements

    first = next(iter(results.values()))
    device = first[-1].machines[-1]["device"]
    circumstances, several = made([result for some in results.values() for result in some])
    fields = {name: some[0].recipe.fields() for name, some in results.items()}
    options = "".join(f" --{key} {value}" for key, value in changes.items())
    options += "" if precision == "32-true" else f" --precision {precision}"
    path = measurements.write(
        f"compare_{family}",
        values,
        command=f"course compare {family} --seeds {len(first)}{options} --device {device} --save",
        protocol=f"each recipe with seeds 0 to {len(first) - 1}; last: the end of training, spread: sample standard "
        f"deviation over seeds; curve: mean over seeds; precision {precision}{more}; recipes with seed 0: {fields}"
        f"{several}",
        data=first[0].data,
        seed=0,
        made=circumstances,
    )
    typer.echo(f"recorded: {path}")
