"""The loop on a GPU. Oracle: the same training on the CPU, to tolerance."""

from pathlib import Path
from typing import Any

import pytest
import torch

from course_lib.training import train
from tests.training.processes import Interrupt, read
from tests.training.toy import Toy

pytestmark = pytest.mark.gpu

# dropout draws other numbers on another device
PLAIN = Toy(steps=40, batch=16, dropout=0.0, validate_every=10)


def weights(result: Any) -> list[torch.Tensor]:
    return [parameter.detach().cpu() for parameter in result.model.parameters()]


def test_auto_trains_on_the_gpu_as_on_the_cpu() -> None:
    """Oracle: weights and curve of the CPU, to float32's tolerance after 40 steps; pinned memory on the way."""
    gpu, cpu = (train(PLAIN, device=device, progress=False, workers=0) for device in ("auto", "cpu"))
    assert next(gpu.model.parameters()).is_cuda
    for ours, wanted in zip(weights(gpu), weights(cpu), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4)
    for row, wanted in zip(gpu.curve[1:], cpu.curve[1:], strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-3)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_on_the_gpu() -> None:
    """Oracle: the same batches made in the process itself; tolerance, because a GPU sums in any order."""
    alone, helped = (train(PLAIN, device="cuda", progress=False, workers=workers) for workers in (0, 2))
    for ours, wanted in zip(weights(helped), weights(alone), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision(precision: Any) -> None:
    """Oracle: float32 on the CPU, within a few per cent of its error; weights stay float32 and finite."""
    mixed = train(PLAIN, device="cuda", precision=precision, progress=False, workers=0)
    full = train(PLAIN, device="cpu", progress=False)
    assert {parameter.dtype for parameter in mixed.model.parameters()} == {torch.float32}
    assert all(torch.isfinite(parameter).all() for parameter in mixed.model.parameters())
    assert mixed.curve[-1]["error"] < 0.9 * mixed.curve[0]["error"]
    assert mixed.curve[-1]["error"] == pytest.approx(full.curve[-1]["error"], rel=0.25)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_stopped_and_gone_on_with(tmp_path: Path, precision: Any) -> None:
    """Oracle: the straight run, to tolerance; the state of the loss scaler is kept too."""
    options: dict[str, Any] = {"device": "cuda", "precision": precision, "progress": False, "workers": 0}
    straight = train(PLAIN, tmp_path / "straight", **options)
    with pytest.raises(KeyboardInterrupt):
        train(PLAIN, tmp_path / "run", **options, on_row=Interrupt(20))
    stopped = read(tmp_path / "run")
    assert stopped["step"] == 20
    assert bool(stopped["scaler"]) == (precision == "16-mixed")
    resumed = train(PLAIN, tmp_path / "run", **options)
    for ours, wanted in zip(weights(resumed), weights(straight), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4)
    assert read(tmp_path / "run")["scaler"] == read(tmp_path / "straight")["scaler"]


def test_a_checkpoint_of_the_gpu_goes_on_on_the_cpu(tmp_path: Path) -> None:
    """Oracle: the straight run on the CPU, to tolerance."""
    with pytest.raises(KeyboardInterrupt):
        train(PLAIN, tmp_path / "run", device="cuda", progress=False, workers=0, on_row=Interrupt(20))
    resumed = train(PLAIN, tmp_path / "run", device="cpu", progress=False)
    straight = train(PLAIN, device="cpu", progress=False)
    for ours, wanted in zip(weights(resumed), weights(straight), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4)
