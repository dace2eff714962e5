"""Exercises of chapter 11, TTSR and its ancestors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .compare import Wrong, kind, same_call, same_numbers
from .registry import exercise

_Q = torch.tensor([[3.0, 4], [1, 0]], dtype=torch.float64)
_K = torch.tensor([[6.0, 8], [0, 2], [1, 1]], dtype=torch.float64)
_V = torch.tensor([[100.0, 10], [50, 5], [20, 2]], dtype=torch.float64)


def attend(q: Any, k: Any, v: Any) -> tuple[Tensor, Tensor]:
    """The best key of each query by the cosine: its value, and the cosine itself."""
    r = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T
    soft, hard = r.max(dim=1)
    return v[hard], soft


def _query_as_it_is(q: Any, k: Any, v: Any) -> tuple[Tensor, Tensor]:
    soft, hard = (q @ F.normalize(k, dim=1).T).max(dim=1)
    return v[hard], soft


def _key_as_it_is(q: Any, k: Any, v: Any) -> tuple[Tensor, Tensor]:
    soft, hard = (F.normalize(q, dim=1) @ k.T).max(dim=1)
    return v[hard], soft


def _averaged(q: Any, k: Any, v: Any) -> tuple[Tensor, Tensor]:
    r = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T
    return r.softmax(dim=1) @ v, r.max(dim=1)[0]


def _softmax(q: Any, k: Any, v: Any) -> tuple[Tensor, Tensor]:
    r = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T
    soft, hard = r.softmax(dim=1).max(dim=1)
    return v[hard], soft


def _other_way(q: Any, k: Any, v: Any) -> tuple[Tensor, Tensor]:
    soft, hard = (F.normalize(q, dim=1) @ F.normalize(k, dim=1).T).max(dim=0)
    return v[hard], soft


def _swapped(q: Any, k: Any, v: Any) -> tuple[Tensor, Tensor]:
    texture, soft = attend(q, k, v)
    return soft, texture


@exercise(
    "11.1",
    title="hard and soft attention",
    hints=(
        "Bring queries and keys to length 1. Then one matrix product holds all cosines.",
        "r = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T has a row for each query; take the maximum of each row.",
        "soft, hard = r.max(dim=1): hard says which value, v[hard], and soft is S.",
    ),
    solution=attend,
    wrong=[
        (_query_as_it_is, "the queries too"),
        (_key_as_it_is, "the keys"),
        (_averaged, "average"),
        (_softmax, "no softmax"),
        (_other_way, "(2, 2)"),
        (_swapped, "(T, S)"),
        (0.5, "expected a function"),
    ],
)
def check_11_1(answer: Any) -> str:
    """Oracle: the chapter's numbers by hand, and cosines computed one by one."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    texture, soft = _two(answer(_Q.clone(), _K.clone(), _V.clone()))
    if tuple(texture.shape) == (2,) and tuple(soft.shape) == (2, 2):
        raise Wrong("attend(q, k, v) came in the other order, expected (T, S)")
    same_numbers(torch.tensor(texture.shape), [2, 2], "the shape of T, for which (2, 2) is expected,")
    for wrong, why in (
        (_averaged, "T is an average of all values; hard attention takes the one value of the best key"),
        (_key_as_it_is, "a long key wins because it is long: divide the keys by their lengths"),
        (_query_as_it_is, "T is right, but S is no cosine: divide the queries too, or it cannot be compared"),
        (_softmax, "S is the largest cosine of each query, with no softmax"),
    ):
        other = wrong(_Q, _K, _V)
        if _near(texture, other[0]) and _near(soft, other[1]):
            raise Wrong(f"T came as {texture.tolist()}, S as {[round(x, 4) for x in soft.tolist()]}: {why}")
    generator = torch.Generator().manual_seed(11)
    for n, m, c, d in ((2, 3, 2, 2), (4, 6, 3, 2), (7, 5, 4, 1)):
        q, k, v = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((n, c), (m, c), (m, d)))
        if (n, m) == (2, 3):
            q, k, v = _Q, _K, _V
        texture, soft = _two(answer(q.clone(), k.clone(), v.clone()))
        cosines = [[float(a @ b / (a.norm() * b.norm())) for b in k] for a in q]
        best = [max(range(m), key=row.__getitem__) for row in cosines]
        same_numbers(soft, [row[j] for row, j in zip(cosines, best, strict=True)], "S")
        same_numbers(texture, torch.stack([v[j] for j in best]), "T")
    return "T says what, S says how much of it."


def _two(value: Any) -> tuple[Tensor, Tensor]:
    """Return the answer's two tensors as float64, or say what was expected."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Wrong(f"attend(q, k, v) came as {kind(value)}, expected (T, S)")
    first, second = (v if isinstance(v, Tensor) else torch.as_tensor(v) for v in value)
    return first.detach().cpu().double(), second.detach().cpu().double()


def _near(came: Tensor, value: Tensor) -> bool:
    return came.shape == value.shape and torch.allclose(came, value)


def matrix_bytes(small: Any, reference: Any) -> Any:
    """One float32 for each pair of a small pixel and a place of the reference, of which every fourth counts."""
    (h, w), (height, width) = small, reference
    return 4 * h * w * (height // 4) * (width // 4)


def _numbers(small: Any, reference: Any) -> Any:
    return matrix_bytes(small, reference) // 4


def _all_pixels(small: Any, reference: Any) -> Any:
    return 16 * matrix_bytes(small, reference)


def _enlarged(small: Any, reference: Any) -> Any:
    return 256 * matrix_bytes(small, reference)


def _of_patches(small: Any, reference: Any) -> Any:
    return 9 * matrix_bytes(small, reference)


@exercise(
    "11.2",
    title="the matrix of all pairs",
    hints=(
        "How many places has each side of the matrix? The search takes place at a quarter of the size, which is LR's.",
        "h w queries and H/4 W/4 keys; each pair is one number of four bytes.",
        "For (40, 40) and (160, 160): 1600 * 1600 * 4 = 10,240,000.",
    ),
    solution=matrix_bytes,
    wrong=[
        (_numbers, "four bytes"),
        (_all_pixels, "quarter"),
        (_enlarged, "small picture"),
        (_of_patches, "one number"),
        (10_240_000, "expected a function"),
    ],
)
def check_11_2(answer: Any) -> str:
    """Oracle: the bytes of the matrix itself, made small."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    came = answer((40, 40), (160, 160))
    for wrong, why in (
        (_numbers, "that counts numbers; each has four bytes"),
        (_all_pixels, "the reference's places are counted at a quarter of its size, on both axes"),
        (_enlarged, "the places are those of the small picture, and a quarter of the reference, on both axes"),
        (_of_patches, "a pair of patches is one number, however large the patches are"),
    ):
        if came == wrong((40, 40), (160, 160)):
            raise Wrong(f"matrix_bytes((40, 40), (160, 160)) came as {came:,}: {why}")
    for small, reference in (((3, 5), (8, 12)), ((1, 1), (4, 4)), ((6, 2), (20, 4))):
        pairs = torch.zeros(reference[0] // 4 * (reference[1] // 4), small[0] * small[1])
        same_call(answer, (small, reference), pairs.element_size() * pairs.numel())
    same_call(answer, ((40, 40), (160, 160)), 10_240_000)
    same_call(answer, ((160, 160), (640, 640)), 4 * 25_600**2)
    return "10 MB for 40 x 40; 16 times the pixels of both make it 256 times larger."


def covered(n: Any, step: Any) -> list[int]:
    """Three patches, and one less at each end."""
    patches = [range(step * (i - 1), step * (i + 2)) for i in range(n)]
    return [sum(pixel in patch for patch in patches) for pixel in range(n * step)]


def _always_three(n: int, step: int) -> list[int]:
    return [3] * (n * step)


def _one_pixel(n: int, step: int) -> list[int]:
    return [2, *[3] * (n * step - 2), 2]


def _ends_of_two(n: int, step: int) -> list[int]:
    return [2] * step + [3] * ((n - 2) * step) + [2] * (n > 1) * step


def _framed(n: int, step: int) -> list[int]:
    return [1] * step + [2] * step + [3] * (n - 2) * step + [2] * step + [1] * step


@exercise(
    "11.3",
    title="patches that overlap",
    hints=(
        "Patch i covers its own small pixel and one on each side: from pixel step (i - 1) up to step (i + 2).",
        "Inside there are three. Who is missing at the first small pixel?",
        "A first small pixel has no patch before it, a last one none behind it; a single one has only its own.",
    ),
    solution=covered,
    wrong=[
        (_always_three, "at the ends"),
        (_one_pixel, "small pixel"),
        (_ends_of_two, "n = 1"),
        (_framed, "n * step"),
        ([2, 3, 3, 2], "expected a function"),
    ],
)
def check_11_3(answer: Any) -> str:
    """Oracle: PyTorch's `fold` of ones."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    came = list(answer(4, 2))
    for wrong, why in (
        (_always_three, "at the ends one patch is missing: nobody lays patches from outside"),
        (_one_pixel, "a whole small pixel at each end has one patch less, that is `step` pixels"),
        (_framed, "that is longer than the picture: there are n * step pixels, without a frame"),
    ):
        if came == wrong(4, 2):
            raise Wrong(f"covered(4, 2) came as {came}: {why}")
    for n, step in ((4, 2), (4, 1), (5, 4), (2, 3), (1, 2)):
        ones = torch.ones(1, 3 * step, n)
        overlaps = F.fold(ones, (1, n * step), (1, 3 * step), padding=(0, step), stride=(1, step))
        same_call(answer, (n, step), overlaps.flatten(), f"covered({n}, {step})" + ", where n = 1," * (n == 1))
    return "Down times right: 9 inside, 6 at the edges, 4 in the corners, and all are divided by 9."


def pull(q: Any, k: Any) -> Tensor:
    """What of the key's direction is not the query's yet, divided by the query's length."""
    unit_q, unit_k = q / q.norm(), k / k.norm()
    gradient: Tensor = (unit_k - (unit_q @ unit_k) * unit_q) / q.norm()
    return gradient


def _key_alone(q: Any, k: Any) -> Any:
    return k / k.norm() / q.norm()


def _without_length(q: Any, k: Any) -> Any:
    return pull(q, k) * q.norm()


def _of_key(q: Any, k: Any) -> Any:
    return pull(k, q)


def _of_product(q: Any, k: Any) -> Any:
    return k


@exercise(
    "11.4",
    title="where S pulls",
    hints=(
        "The cosine is a quotient, q . k over their lengths; the length of q depends on q too.",
        "With unit vectors: the part of k that points along q cannot raise the cosine, so take it away.",
        "(unit_k - s unit_q) / |q|, with s the cosine.",
    ),
    solution=pull,
    wrong=[
        (_key_alone, "along q"),
        (_without_length, "length of q"),
        (_of_key, "by k"),
        (_of_product, "product"),
        (0.5, "expected a function"),
    ],
)
def check_11_4(answer: Any) -> str:
    """Oracle: autograd of the cosine."""
    if not callable(answer):
        raise Wrong(f"the answer came as {kind(answer)}, expected a function")
    generator = torch.Generator().manual_seed(4)
    pairs = [(_Q[1], _K[2])]
    pairs += [
        (torch.randn(n, generator=generator).double(), torch.randn(n, generator=generator).double()) for n in (3, 9)
    ]
    for number, (q, k) in enumerate(pairs):
        query = q.clone().requires_grad_()
        (expected,) = torch.autograd.grad(F.cosine_similarity(query, k, dim=0), query)
        came = torch.as_tensor(answer(q.clone(), k.clone())).detach().double()
        for wrong, why in (
            (_of_product, "that is the derivative of the product q . k, without the lengths"),
            (_of_key, "that is the derivative by k"),
            (_key_alone, "the part of k along q is still in it, which only makes q longer"),
            (_without_length, "divide by the length of q: a long vector turns less for the same step"),
        ):
            if number and _near(came, torch.as_tensor(wrong(q, k))):
                raise Wrong(f"pull(q, k) for vectors of {len(q)} numbers: {why}")
        if number:
            same_numbers(came, expected, f"pull(q, k) for vectors of {len(q)} numbers")
    same_call(answer, (_Q[1], _K[2]), [0, 2**-0.5], "pull((1, 0), (1, 1))")
    return "It is at a right angle to q: S learns directions, never lengths."
