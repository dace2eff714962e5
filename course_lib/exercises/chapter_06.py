"""Exercises of chapter 06, PixelShuffle and ESPCN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from course_lib.plain import pixel_shuffle_plain
from course_lib.upsampling import pixel_shuffle, pixel_unshuffle, transposed_to_subpixel

from .compare import Wrong, kind, same_call, same_numbers
from .registry import exercise


def lands(n: Any, h: Any, w: Any, r: Any) -> tuple[Any, Any, Any]:
    """n = c r^2 + i r + j: divide by r^2 for the colour, then by r for the row of the block."""
    c, place = divmod(n, r * r)
    i, j = divmod(place, r)
    return c, r * h + i, r * w + j


def _colour_fastest(n: Any, h: Any, w: Any, r: Any) -> tuple[Any, Any, Any]:
    place, c = divmod(n, 2)
    return c, r * h + place // r, r * w + place % r


def _columns_first(n: Any, h: Any, w: Any, r: Any) -> tuple[Any, Any, Any]:
    c, y, x = lands(n, 0, 0, r)
    return c, r * h + x, r * w + y


def _side_by_side(n: Any, h: Any, w: Any, r: Any) -> tuple[Any, Any, Any]:
    c, i, j = lands(n, 0, 0, r)
    return c, h + i, w + j


@exercise(
    "06.1",
    title="where a number lands",
    hints=(
        "In the formula of the chapter the channel is c r^2 + i r + j. Which part of it does a division by r^2 give?",
        "n // r^2 is the colour; the remainder is i r + j, and dividing that by r gives i, with the remainder j.",
        "Channel 7 with r = 2: colour 7 // 4 = 1, remainder 3, i = 1, j = 1. It goes to row 2 h + 1, column 2 w + 1.",
    ),
    solution=lands,
    wrong=[
        (_colour_fastest, "TensorFlow"),
        (_columns_first, "column of the block varies fastest"),
        (_side_by_side, "r pixels apart"),
        ((1, 5, 7), "expected a function"),
    ],
)
def check_06_1(answer: Any) -> None:
    """Oracle: the index formula, read backwards."""
    if callable(answer):
        came = tuple(answer(1, 2, 3, 2))
        if came == (1, 4, 6):
            raise Wrong(
                f"lands(1, 2, 3, 2) came as {came}: there the colour varies fastest, which is TensorFlow's order"
            )
        if came == (0, 5, 6):
            raise Wrong(f"lands(1, 2, 3, 2) came as {came}, expected (0, 4, 7): the column of the block varies fastest")
        if came == (0, 2, 4):
            raise Wrong(f"lands(1, 2, 3, 2) came as {came}: neighbouring blocks begin r pixels apart, at r h and r w")
    for args in ((7, 2, 3, 2), (1, 2, 3, 2), (2, 0, 5, 2), (22, 4, 1, 3), (0, 0, 0, 1), (47, 3, 2, 4)):
        same_call(answer, args, lands(*args))


def phases(t: Any) -> Tensor:
    """Tap (2 (2 - u) + i, 2 (2 - v) + j) of t is W[2 i + j][u, v]: take every second tap, and turn."""
    return torch.stack([t[i::2, j::2].flip(0, 1) for i in (0, 1) for j in (0, 1)])


def _not_turned(t: Any) -> Tensor:
    return torch.stack([t[i::2, j::2] for i in (0, 1) for j in (0, 1)])


def _cut_in_four(t: Any) -> Tensor:
    return torch.stack([t[3 * i : 3 * i + 3, 3 * j : 3 * j + 3].flip(0, 1) for i in (0, 1) for j in (0, 1)])


def _columns_before_rows(t: Any) -> Tensor:
    return phases(t)[[0, 2, 1, 3]]


@exercise(
    "06.2",
    title="four filters out of one kernel",
    hints=(
        "Row 2 (2 - u) + i of t belongs to filters with this i. For i = 0 these are rows 4, 2, 0 as u goes 0, 1, 2.",
        "t[i::2, j::2] collects the nine taps of one filter, but with the first last: u runs against the rows.",
        "Turn each by 180 degrees, t[i::2, j::2].flip(0, 1), and stack them for (i, j) = (0,0), (0,1), (1,0), (1,1).",
    ),
    solution=phases,
    wrong=[
        (_not_turned, "180 degrees"),
        (_cut_in_four, "interleaved"),
        (_columns_before_rows, "2 i + j"),
        (torch.zeros(4, 3, 3), "expected a function"),
    ],
)
def check_06_2(answer: Any) -> str:
    """Oracle: `transposed_to_subpixel`, itself tested against torch's transposed convolution."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    t = torch.arange(36, dtype=torch.float64).view(6, 6) ** 2
    came = _tensor(answer(t.clone()), (4, 3, 3), "phases(t)")
    for wrong, why in (
        (_not_turned, "each filter must be turned by 180 degrees: u grows where the row of t falls"),
        (_cut_in_four, "the four filters are interleaved in t, not its four quarters"),
        (_columns_before_rows, "right filters, wrong order: filter 1 has i = 0 and j = 1, since the order is 2 i + j"),
    ):
        if torch.equal(came, wrong(t)):
            raise Wrong(why)
    for k in range(3):
        kernel = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        expected = transposed_to_subpixel(kernel[None, None], 2)[:, 0]
        same_numbers(_tensor(answer(kernel.clone()), (4, 3, 3), "phases(t)"), expected, "phases(t)")
    return "Frameworks that lack a transposed convolution run it in just this way."


def mend(picture: Any, r: Any) -> Tensor:
    """Go back to the channels as PyTorch's shuffle found them, then shuffle as TensorFlow would have."""
    return pixel_shuffle(pixel_unshuffle(picture, r), r, order="tensorflow")


def _other_way(picture: Any, r: Any) -> Tensor:
    return pixel_shuffle(pixel_unshuffle(picture, r, order="tensorflow"), r)


def _same_order(picture: Any, r: Any) -> Tensor:
    return pixel_shuffle(pixel_unshuffle(picture, r), r)


def _still_channels(picture: Any, r: Any) -> Tensor:
    return pixel_unshuffle(picture, r)


@exercise(
    "06.3",
    title="a scrambled picture, mended",
    hints=(
        "First undo what was done: pixel_unshuffle(picture, r) gives the channels that the network had made.",
        "Those channels are good; they are in TensorFlow's order. `upsampling.pixel_shuffle` has an argument for that.",
        'pixel_shuffle(pixel_unshuffle(picture, r), r, order="tensorflow").',
    ),
    solution=mend,
    wrong=[
        (_other_way, "the wrong way round"),
        (_same_order, "unchanged"),
        (_still_channels, "channels"),
        (2, "expected a function"),
    ],
)
def check_06_3(answer: Any) -> str:
    """Oracle: pictures scrambled by the loops of `course_lib.plain`, with known originals."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    for colours, r in ((3, 2), (3, 3), (2, 4), (1, 2)):
        channels = torch.arange(colours * r * r * 6, dtype=torch.float64).view(-1, 2, 3)
        scrambled = torch.tensor(pixel_shuffle_plain(channels.tolist(), r), dtype=torch.float64)
        meant = torch.tensor(pixel_shuffle_plain(channels.tolist(), r, "tensorflow"), dtype=torch.float64)
        came = answer(scrambled.clone(), r)
        if isinstance(came, Tensor) and came.shape == channels.shape != meant.shape:
            raise Wrong(f"mend(picture, {r}) came as the channels, shape {tuple(came.shape)}; shuffle them once more")
        came = _tensor(came, tuple(meant.shape), f"mend(picture, {r})")
        if colours > 1 and torch.equal(came, scrambled):
            raise Wrong(f"mend(picture, {r}) came back unchanged: the two shuffles need different orders")
        if colours > 1 and torch.equal(came, _other_way(scrambled, r)):
            raise Wrong("the wrong way round: the picture was made by PyTorch's shuffle, so undo that one first")
        same_numbers(came, meant, f"mend(picture, {r})")
    return "What a permutation did, a permutation can undo."


def cost(layers: Any, r: Any) -> Any:
    """Each layer multiplies kernel^2 x in x out times for a small pixel; a small pixel is r^2 large ones."""
    return sum(kernel**2 * into * out for kernel, into, out in layers) / r**2


def _per_small_pixel(layers: Any, r: Any) -> Any:
    return r**2 * cost(layers, r)


def _kernel_once(layers: Any, r: Any) -> Any:
    return sum(kernel * into * out for kernel, into, out in layers) / r**2


def _with_biases(layers: Any, r: Any) -> Any:
    return sum((kernel**2 * into + 1) * out for kernel, into, out in layers) / r**2


def _divided_once(layers: Any, r: Any) -> Any:
    return r * cost(layers, r)


ESPCN_X3 = [(5, 1, 64), (3, 64, 32), (3, 32, 9)]


@exercise(
    "06.4",
    title="what a network costs",
    hints=(
        "One number of a layer's result reads kernel^2 pixels in each channel in. How many has a small pixel?",
        "A layer multiplies kernel^2 x in x out times for a small pixel. How many large ones is that?",
        "sum(k**2 * m * n for k, m, n in layers) / r**2; for ESPCN x3 it is (1,600 + 18,432 + 2,592) / 9.",
    ),
    solution=cost,
    wrong=[
        (_per_small_pixel, "of the large picture"),
        (_kernel_once, "kernel^2"),
        (_with_biases, "biases"),
        (_divided_once, "expected 2513.7778"),
        (2514, "expected a function"),
    ],
)
def check_06_4(answer: Any) -> str:
    """Oracle: the counts of the chapter, and layers whose product is done by hand."""
    if callable(answer):
        came = answer(list(ESPCN_X3), 3)
        for wrong, why in (
            (
                _per_small_pixel,
                "that is for a small pixel, which becomes r^2 pixels of the large picture",
            ),
            (_kernel_once, "a kernel of 3 has 9 taps: each number of a layer reads kernel^2 pixels of each channel in"),
            (_with_biases, "biases are added, they multiply nothing"),
        ):
            if came == wrong(ESPCN_X3, 3):
                raise Wrong(f"cost of ESPCN x3 came as {came:,.1f}: {why}")
    for layers, r in ((ESPCN_X3, 3), ([(5, 1, 64), (3, 64, 32), (3, 32, 4)], 2), ([(1, 7, 16)], 4), ([(3, 2, 12)], 2)):
        same_call(answer, (layers, r), cost(layers, r))
    return "Of ESPCN's 2,514 at x3 the last layer takes 288, and as many at every factor: the saving is in the others."


def _tensor(value: Any, shape: tuple[int, ...], name: str = "the answer") -> Tensor:
    """Return the answer as float64, or say what shape was expected."""
    came = value if isinstance(value, Tensor) else None
    if came is None:
        same_numbers(value, value, name)
        came = torch.tensor(value, dtype=torch.float64)
    if tuple(came.shape) != shape:
        raise Wrong(f"{name} came with shape {tuple(came.shape)}, expected shape {shape}")
    return came.detach().cpu().double()
