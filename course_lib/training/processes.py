"""One process, or several that torchrun has started: the same code, told apart by the environment."""

import functools
import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, TypeVar, get_args

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.plugins.precision import Precision as FullPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from torch import Tensor, nn

from course_lib import measurements

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
_T = TypeVar("_T")

# what Fabric tells about itself is of no use to a reader of the progress bar
for _name in ("rank_zero", "distributed"):
    logging.getLogger(f"lightning_fabric.utilities.{_name}").setLevel(logging.WARNING)


class OtherProcessFailed(RuntimeError):
    """The first process could not do what all wait for; the message is its error."""


class _Mixed(MixedPrecision):
    """Autocast alone: Fabric's own also rounds the inputs, and coordinates and boxes do not survive that."""

    def convert_input(self, data: Any) -> Any:
        return data


def launch(device: Device, precision: Precision) -> Fabric:
    """Return a Fabric that knows this process, its peers and its device; waits until all processes are there.

    Raises ValueError for a device or precision that is unknown or not on this machine, and for nodes with different
    numbers of processes.
    """
    chosen = _device(device)
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    if precision == "16-mixed" and chosen == "cpu":
        raise ValueError('precision "16-mixed" needs device "cuda"; on a CPU take "bf16-mixed" or "32-true"')
    plugin = FullPrecision() if precision == "32-true" else _Mixed(precision, chosen)
    if not TorchElasticEnvironment.detect():
        place = torch.device("cuda", torch.cuda.current_device()) if chosen == "cuda" else torch.device("cpu")
        return Fabric(
            accelerator=chosen,
            devices=1,
            strategy=SingleDeviceStrategy(place),
            plugins=[plugin, LightningEnvironment()],
        )
    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if world % local:
        raise ValueError(
            f"every node must run as many processes as the others, got {world} in all and {local} on this one"
        )
    if chosen == "cuda" and local > torch.cuda.device_count():
        raise ValueError(f"{local} processes on this machine need as many GPUs, found {torch.cuda.device_count()}")
    # the first process validates while the others wait, which may take longer than a lost machine should
    strategy = DDPStrategy(timeout=timedelta(hours=2))
    fabric = Fabric(
        accelerator=chosen,
        devices=local,
        num_nodes=world // local,
        strategy=strategy,
        plugins=[plugin, TorchElasticEnvironment()],
    )
    fabric.launch()
    return fabric


def _device(device: str) -> str:
    if device not in get_args(Device):
        raise ValueError(f"device must be one of {', '.join(get_args(Device))}, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            'device "cuda": this machine has no NVIDIA graphics card that PyTorch can use; take "cpu" or "auto"'
        )
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, without gradient; all must call it. One process: the value."""
    total = value.detach().clone()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
        total = total / torch.distributed.get_world_size()
    return total


def machine(fabric: Fabric) -> dict[str, Any]:
    """Return what takes the steps of a training: see `Result.machines`."""
    here = _circumstances() | {
        "device": fabric.device.type,
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(here))  # torch has a class of its own for its version
    return plain


@functools.cache
def _circumstances() -> dict[str, Any]:
    return measurements.circumstances()  # asks git: once, and before somebody changes the files


def check_alike(fabric: Fabric, values: Mapping[str, Any]) -> None:
    """Raise ValueError in all processes where a value differs from that of the first process."""
    first = fabric.broadcast(dict(values))
    names = [name for name in {**first, **values} if repr(first.get(name)) != repr(values.get(name))]
    place = fabric.device if fabric.world_size > 1 else None
    if mean_over_processes(torch.tensor(float(bool(names)), device=place)) > 0:
        found = [f"{name} is {first.get(name)!r} in the first process and {values.get(name)!r} here" for name in names]
        what = "; ".join(found) or "another process differs from the first"
        raise ValueError(f"all processes must train the same: {what}")


def warn_of_batch_statistics(fabric: Fabric, model: nn.Module) -> None:
    """Warn, in the first of several processes, of layers whose statistics are of one process's slice of the batch."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    alone = any(layer.training and not isinstance(layer, nn.SyncBatchNorm) for layer in layers)
    if alone and fabric.world_size > 1 and fabric.is_global_zero:
        warnings.warn(
            f"BatchNorm takes its statistics from each process's own slice of the batch: {fabric.world_size} processes "
            "do not give the weights of one",
            stacklevel=2,
        )


def check_all_used(fabric: Fabric, model: nn.Module) -> None:
    """Raise ValueError where a gradient is missing in one of several processes: then averages would wait for it."""
    if fabric.world_size > 1:
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        if missing:
            raise ValueError(
                f"with several processes the loss must use every parameter that is trained, it does not use "
                f"{', '.join(missing)}; freeze them (requires_grad_(False)), or add 0 * their sum to the loss"
            )


def first_does(fabric: Fabric, action: Callable[[], _T]) -> _T:
    """Let the first process alone do something and give its result to all; its error ends all of them.

    Raises what `action` raises, and OtherProcessFailed in the other processes.
    """
    result: Any = None
    error: Exception | None = None
    if fabric.is_global_zero:
        try:
            result = action()
        except Exception as problem:
            error = problem
    result, failure = fabric.broadcast((result, None if error is None else str(error)))
    if error is not None:
        raise error
    if failure is not None:
        raise OtherProcessFailed(failure)
    done: _T = result
    return done
