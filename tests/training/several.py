"""Run by torchrun, or alone, by test_processes.py: train in each of these ways and write down what came of it.

python several.py FOLDER: "alone/..." or, in process r of several, "r/..." below FOLDER.
"""

import json
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.files import CannotWrite
from course_lib.training import mean_over_processes, train
from tests.training.toy import Toy

RANK = int(os.environ.get("RANK", "0"))


@dataclass(frozen=True, kw_only=True)
class Weighted(Toy):
    """A loss that is divided by what the whole batch counts, as detectors do; momentum, clipping, no dropout."""

    name: str = "weighted"
    batch: int = 8
    dropout: float = 0.0
    clip: float | None = 0.5

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        counted = (batch["x"][:, :1] > 0.3).float() + 0.1
        count = mean_over_processes(counted.sum())
        error = (model(batch["x"]) - batch["y"]).square()
        return (error * counted).sum() / count + error.mean(), {"share": count / len(error)}

    def optimiser(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=self.rate, momentum=0.9)


@dataclass(frozen=True, kw_only=True)
class Lopsided(Weighted):
    """In the last process alone: a sample that cannot be read, an infinite loss, or a signal, at step 7."""

    what: str = "none"

    def data(self) -> Any:
        return super().data() if self.what != "data" else type(super().data())(self.seed, broken=7 * 8 + 7)

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = super().loss(model, batch)
        last = type(self).steps_seen = getattr(type(self), "steps_seen", -1) + 1
        if last == 7 and int(os.environ.get("WORLD_SIZE", "1")) - 1 == RANK:
            if self.what == "loss":
                loss = loss * float("inf")
            if self.what == "signal":
                signal.raise_signal(signal.SIGTERM)
        return loss, logs

    def validate(self, model: Any) -> dict[str, float]:
        if self.what == "validation" and getattr(type(self), "steps_seen", -1) == 7:
            raise CannotWrite(0, "nothing can be measured")
        return super().validate(model)


@dataclass(frozen=True, kw_only=True)
class Normed(Weighted):
    """A normalisation over the batch; frozen, it takes no statistics."""

    frozen: bool = False

    def model(self) -> nn.Module:
        norm = nn.BatchNorm1d(8)
        return nn.Sequential(nn.Linear(2, 8), norm.eval() if self.frozen else norm, nn.Tanh(), nn.Linear(8, 1))


@dataclass(frozen=True, kw_only=True)
class Idle(Weighted):
    """A layer that the loss does not use."""

    def model(self) -> nn.Module:
        model = super().model()
        model.add_module("spare", nn.Identity())
        model.get_submodule("spare").register_parameter("weight", nn.Parameter(torch.zeros(2)))
        return model


class Elsewhere:
    """Other samples under another name."""

    description = "points of a circle"

    def sample(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.zeros(2), "y": torch.zeros(1)}


@dataclass(frozen=True, kw_only=True)
class Found(Weighted):
    """What lies on each machine is not the same."""

    def data(self) -> Any:
        return Elsewhere() if RANK else super().data()


def attempt(recipe: Toy, folder: Path, **options: Any) -> dict[str, Any]:
    Lopsided.steps_seen = -1  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = train(recipe, folder, device="cpu", progress=False, **options)
    except BaseException as error:
        return {"error": type(error).__name__, "message": str(error)}
    curve = [{k: v for k, v in row.items() if "seconds" not in k} for row in result.curve]
    return {
        "weights": [p.tolist() for p in result.model.parameters()],
        "curve": curve,
        "warnings": [str(warning.message) for warning in caught if "BatchNorm" in str(warning.message)],
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    alone = "WORLD_SIZE" not in os.environ
    mine = folder / ("alone" if alone else str(RANK))
    shared = folder / ("alone" if alone else "shared")
    found = {"weighted": attempt(Weighted(), shared / "weighted")}
    if not alone:
        seen: list[Any] = []
        for what in ("data", "loss", "signal", "validation"):
            found[what] = attempt(Lopsided(what=what), shared / what)
        # each process of these goes on with what the first one has read
        found["resumed"] = attempt(Lopsided(what="signal"), shared / "signal", on_row=seen.append)
        found["rows"] = {"steps": [row["step"] for row in seen]}
        found["normed"] = attempt(Normed(), shared / "normed")
        found["frozen"] = attempt(Normed(frozen=True), shared / "frozen")
        found["idle"] = attempt(Idle(), shared / "idle")
        found["seeds"] = attempt(Weighted(seed=RANK), shared / "seeds")
        found["elsewhere"] = attempt(Found(), shared / "elsewhere")
        found["odd"] = attempt(Weighted(batch=9), shared / "odd")
        # a folder that only the first process cannot have
        (shared / "file").touch()
        found["file"] = attempt(Weighted(), shared / "file")
    mine.mkdir(parents=True, exist_ok=True)
    (mine / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
