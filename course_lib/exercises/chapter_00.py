"""Chapter 00: a rehearsal that is solved in the text (00.0), and three warm-up exercises."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .compare import Wrong, kind, same_numbers
from .registry import exercise

_ROW = "course_lib's pictures are (C, H, W): channels first, rows second, columns last"


@exercise(
    "00.0",
    title="half of the way from 10 to 20",
    hints=(
        "half of the way means half of each pixel",
        "the answer is 1/2 * 10 + 1/2 * 20",
    ),
    solution=15,
    wrong=[
        (20, "copied the right pixel"),
        (30, "came as 30, expected something from 10 to 20"),
        ("15?", "came as the text '15?', expected a number"),
    ],
)
def check_00_0(answer: Any) -> None:
    """A rehearsal: linear interpolation half of the way from 10 to 20."""
    _between(answer, 15)


@exercise(
    "00.1",
    title="three quarters of the way from 10 to 20",
    hints=(
        "the nearer pixel counts more, and the two weights add up to one",
        "three quarters of the way from 10: the 20 has weight 3/4, the 10 has what is left",
        "1/4 * 10 + 3/4 * 20",
    ),
    solution=17.5,
    wrong=[
        (12.5, "that is one quarter of the way"),
        (20, "copied the right pixel"),
        (15, "half of the way"),
        (175, "came as 175, expected something from 10 to 20"),
        ("17.5", "came as the text '17.5', expected a number"),
    ],
)
def check_00_1(answer: Any) -> str:
    """Linear interpolation three quarters of the way from 10 to 20."""
    _between(answer, 17.5)
    return "A quarter of the left pixel, three quarters of the right one."


_OTHERS = {
    12.5: "that is one quarter of the way: the weights are swapped, the nearer pixel counts more",
    15.0: "that is half of the way; here the two pixels do not count the same",
    10.0: "that copied the left pixel; linear interpolation mixes both",
    20.0: "that copied the right pixel; linear interpolation mixes both",
}


def _between(answer: Any, expected: float) -> None:
    if isinstance(answer, str):
        raise Wrong(f"the answer came as {kind(answer)}, expected a number")
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        if answer in _OTHERS and answer != expected:
            raise Wrong(f"the answer came as {answer:g}; {_OTHERS[float(answer)]}")
        if not 10 <= answer <= 20:
            raise Wrong(f"the answer came as {answer:g}, expected something from 10 to 20")
    same_numbers(answer, expected)


def to_picture(array: NDArray[np.uint8]) -> torch.Tensor:
    """A picture as a file holds it, (H, W, 3) in 0..255, as this book wants it: (3, H, W) in [0, 1]."""
    return torch.tensor(array).permute(2, 0, 1).float() / 255


def _no_division(array: NDArray[np.uint8]) -> torch.Tensor:
    return torch.tensor(array).permute(2, 0, 1).float()


def _reshaped(array: NDArray[np.uint8]) -> torch.Tensor:
    height, width, channels = array.shape
    return torch.tensor(array).reshape(channels, height, width).float() / 255


def _turned(array: NDArray[np.uint8]) -> torch.Tensor:
    return torch.tensor(array).permute(2, 1, 0).float() / 255


def _unmoved(array: NDArray[np.uint8]) -> torch.Tensor:
    return torch.tensor(array).float() / 255


def _by_256(array: NDArray[np.uint8]) -> torch.Tensor:
    return torch.tensor(array).permute(2, 0, 1).float() / 256


def _mirrored(array: NDArray[np.uint8]) -> torch.Tensor:
    return 1 - to_picture(array)


def _whole_division(array: NDArray[np.uint8]) -> torch.Tensor:
    return torch.tensor(array).permute(2, 0, 1) // 255


@exercise(
    "00.2",
    title="from a file's bytes to this book's picture",
    hints=(
        "three steps: make a tensor of it, bring the channels to the front, bring 0..255 to 0..1",
        "permute gives the axes a new order and keeps every pixel together; reshape would cut the pixels apart",
        "torch.tensor(array).permute(2, 0, 1) moves the last axis to the front; then .float() / 255",
    ),
    solution=to_picture,
    wrong=[
        (_no_division, "is it divided by 255"),
        (_reshaped, "reshape cuts pixels apart"),
        (_turned, "height and width are swapped"),
        (_unmoved, "channels first"),
        (_whole_division, "torch.float32"),
        (_by_256, "divide by 255, not 256"),
        (_mirrored, "expected (0.129, 0.173, 0.216)."),
        (3, "expected a function"),
    ],
)
def check_00_2(answer: Any) -> None:
    """Conversion of (H, W, 3) uint8 to (3, H, W) float in [0, 1]."""
    if not callable(answer):
        raise Wrong(f"the answer came as {type(answer).__name__}, expected a function of an array")
    # 2 rows, 4 columns: no two axes are alike, so that every swap shows.
    array = (np.arange(24, dtype=np.uint8) * 11).reshape(2, 4, 3)
    came = answer(array.copy())
    if isinstance(came, np.ndarray):
        came = torch.from_numpy(np.ascontiguousarray(came))
    if not isinstance(came, torch.Tensor):
        raise Wrong(f"the result came as {type(came).__name__}, expected a torch tensor")
    shape = tuple(came.shape)
    if shape != (3, 2, 4):
        about = "height and width are swapped" if shape == (3, 4, 2) else _ROW
        raise Wrong(f"an array of shape (2, 4, 3) came out as {shape}, expected (3, 2, 4): {about}")
    if not came.is_floating_point():
        raise Wrong(f"the numbers came as {came.dtype}, expected torch.float32: whole numbers cannot hold 0.5")
    if came.max() > 1:
        raise Wrong(f"the largest number came as {float(came.max()):g}, expected at most 1: is it divided by 255?")
    expected = torch.from_numpy(array.astype(np.float64)).permute(2, 0, 1) / 255
    first = came[:, 0, 1].tolist()
    if not torch.allclose(came.double(), expected, atol=1e-6):
        wanted = expected[:, 0, 1].tolist()
        about = _reason(came.double(), expected)
        raise Wrong(f"the pixel in row 0, column 1 came as {_three(first)}, expected {_three(wanted)}{about}")


def _reason(came: torch.Tensor, expected: torch.Tensor) -> str:
    if torch.allclose(came.flatten().sort().values, expected.flatten().sort().values, atol=1e-6):
        return ": reshape cuts pixels apart, permute keeps them together"
    ratio = float(came.sum() / expected.sum())
    if ratio > 0 and torch.allclose(came, ratio * expected, atol=1e-6):
        wrong = "not 256" if abs(ratio - 255 / 256) < 1e-4 else "once"
        return f": divide by 255, {wrong}: white (255) must become exactly 1"
    return ""


def _three(numbers: list[float]) -> str:
    return "(" + ", ".join(f"{n:.3f}" for n in numbers) + ")"


def typical_error(db: float) -> float:
    """The root-mean-square error behind a PSNR, in steps of an 8-bit picture (0..255)."""
    mse = 10 ** (-db / 10)
    return float(255 * mse**0.5)


def _in_unit_range(db: float) -> float:
    return float(10 ** (-db / 20))


def _without_root(db: float) -> float:
    return float(255 * 10 ** (-db / 10))


def _upside_down(db: float) -> float:
    return float(255 * 10 ** (db / 20))


@exercise(
    "00.3",
    title="what a decibel means in grey levels",
    hints=(
        "a logarithm is undone by a power of 10: first get MSE alone on one side of PSNR = 10 log10(1 / MSE)",
        "MSE = 10 ** (-PSNR / 10); its square root is the typical error in [0, 1]; asked are steps of 0..255",
        "mse = 10 ** (-db / 10), then 255 * mse ** 0.5",
    ),
    solution=typical_error,
    wrong=[
        (_in_unit_range, "times 255"),
        (_without_root, "square root"),
        (_upside_down, "more decibels must mean a smaller error"),
        (8, "expected a function"),
    ],
)
def check_00_3(answer: Any) -> str:
    """PSNR turned into an error in 8-bit steps."""
    if not callable(answer):
        raise Wrong(f"the answer came as {type(answer).__name__}, expected a function of the decibels")
    for db in (20.0, 30.0, 46.0):
        came, wanted = answer(db), typical_error(db)
        near = {
            _in_unit_range(db): "that is the error in [0, 1]; in steps of 0..255 it is that times 255",
            _without_root(db): "that is the squared error; its square root is missing",
            _upside_down(db): "more decibels must mean a smaller error",
        }
        name = f"typical_error({db:g})"
        for other, about in near.items():
            if isinstance(came, (int, float)) and abs(came - other) <= 1e-6 * other:
                raise Wrong(f"{name} came as {came:.4g}, expected {wanted:.4g}: {about}")
        same_numbers(came, wanted, name, tolerance=1e-3)
    return "At 30 dB a pixel is typically 8 steps of 255 away from the truth."
