"""The search of relevant patches and the transfer of textures. Oracles: the matrix of all pairs, numbers by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from course_lib.plain import ttsr as plain
from course_lib.super_resolution import relevance
from course_lib.super_resolution.relevance import search, transfer


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_numbers_by_hand() -> None:
    """Oracle: two queries and three keys on paper; patches of one place are the vectors themselves."""
    query = torch.tensor([[3.0, 4], [1, 0]]).T[None, :, None]  # (1, 2, 1, 2)
    key = torch.tensor([[6.0, 8], [0, 2], [1, 1]]).T[None, :, None]
    expected = torch.tensor([[[1, 0.6], [0.8, 0], [0.98995, 0.70711]]])
    torch.testing.assert_close(plain.relevance(query, key, 1), expected, rtol=0, atol=1e-5)
    index, score = search(query, key, 1)
    assert index.tolist() == [[[0, 2]]]
    torch.testing.assert_close(score, torch.tensor([[[[1, 0.70711]]]]), rtol=0, atol=1e-5)


def test_a_map_laid_on_itself() -> None:
    """Oracle: 0 to 15 by hand; inside nine patches meet, at the border six, in a corner four, and all are / 9."""
    value = torch.arange(16.0).view(1, 1, 4, 4)
    made = transfer(value, torch.arange(16).view(1, 4, 4))[0, 0]
    assert made[1:-1, 1:-1].tolist() == [[5, 6], [9, 10]]
    assert made[0].tolist() == pytest.approx([0, 2 / 3, 4 / 3, 4 / 3])


@pytest.mark.parametrize(("patch", "few"), [(3, 2**18), (3, 60), (1, 60)])
def test_gradient_is_that_of_all_pairs(patch: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: autograd through the matrix of all pairs and its maximum."""
    monkeypatch.setattr(relevance, "_FEW_CPU", few)
    query, key = randn(2, 3, 4, 5).requires_grad_(), randn(2, 3, 6, 3, seed=1).requires_grad_()
    index, score = search(query, key, patch, rows=2)
    expected = plain.hard_and_soft(plain.relevance(query, key, patch), (4, 5))
    assert torch.equal(index, expected[0])
    assert not index.requires_grad
    torch.testing.assert_close(score, expected[1], rtol=0, atol=1e-12)
    weights = randn(*score.shape, seed=2)
    for got, wanted in zip(
        *(torch.autograd.grad(of, (query, key), weights) for of in (score, expected[1])), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(search(query, key, patch)[1], score, rtol=0, atol=1e-12)


def test_gradient_by_differences() -> None:
    """Oracle: gradcheck."""
    query, key, value = (randn(1, 2, 3, 3, seed=k).requires_grad_() for k in range(3))
    assert torch.autograd.gradcheck(lambda q, k: search(q, k)[1], (query, key))
    index, _ = search(query, key)
    assert torch.autograd.gradcheck(lambda v: transfer(v, index), (value,))


def test_zeros_have_no_relevance() -> None:
    """A patch of zeros: score 0, the first index, and no gradient (the quotient's would be a million million)."""
    query = torch.zeros(1, 2, 3, 3, requires_grad=True)
    key = randn(1, 2, 4, 4, dtype=torch.float32).requires_grad_()
    index, score = search(query, key)
    assert int(index.abs().max()) == float(score.detach().abs().max()) == 0
    assert all(float(slope.abs().max()) == 0 for slope in torch.autograd.grad(score.sum(), (query, key)))
    query, key = key, query  # a reference of zeros
    index, score = search(query, key)
    assert int(index.abs().max()) == float(score.detach().abs().max()) == 0


def test_kinds_of_numbers() -> None:
    """Oracle: the same features in float32. Half precision is only how they come; autocast changes nothing."""
    query, key = (randn(1, 4, 5, 6, seed=k, dtype=torch.bfloat16) for k in range(2))
    index, score = search(query.float(), key.float())
    for found in (search(query, key), search(query.double(), key)):
        assert torch.equal(found[0], index)
        torch.testing.assert_close(found[1].float(), score, rtol=0, atol=1e-6)
    assert search(query.double(), key)[1].dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        found = search(query.float(), key.float())
        assert torch.equal(found[0], index)
        assert found[1].dtype == torch.float32
        assert torch.equal(found[1], score)
        sloped = search(query.float().requires_grad_(), key.float())[1]
        torch.testing.assert_close(sloped.detach(), score, rtol=0, atol=1e-6)
    made = transfer(key, index)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), transfer(key.float(), index), rtol=0, atol=0.02)


def test_any_memory_layout() -> None:
    """Oracle: the same numbers in the usual order."""
    query, key, value = (randn(2, 4, n, n, seed=n) for n in (5, 6, 12))
    index, score = search(query, key)
    turned = [x.contiguous(memory_format=torch.channels_last) for x in (query, key, value)]
    found = search(turned[0], turned[1])
    assert torch.equal(found[0], index)
    torch.testing.assert_close(found[1], score, rtol=0, atol=1e-13)
    assert torch.equal(transfer(turned[2], index, 2), transfer(value, index, 2))


X = torch.zeros(1, 2, 4, 4)
INDEX = torch.zeros(1, 3, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: search(X.long(), X), TypeError, "query must be floating point, got torch.int64"),
        (lambda: search(X, X[0]), ValueError, r"key must be \(B, C, h, w\), got \(2, 4, 4\)"),
        (lambda: search(X[..., :0], X), ValueError, r"query must be \(B, C, h, w\), got \(1, 2, 4, 0\)"),
        (lambda: search(X, X[:, :1]), ValueError, r"query's \(B, C\) = \(1, 2\), got \(1, 1\)"),
        (lambda: search(X, X.to("meta")), ValueError, "key must be on query's device cpu, got meta"),
        (lambda: search(X, X, 2), ValueError, "patch must be odd and at least 1, got 2"),
        (lambda: search(X, X, 3.0), TypeError, "patch must be a whole number, got 3.0"),  # type: ignore[arg-type]
        (lambda: search(X, X, rows=0), ValueError, "rows must be at least 1, got 0"),
        (lambda: search(X, X, rows=1.5), TypeError, "rows must be a whole number, got 1.5"),  # type: ignore[arg-type]
        (lambda: transfer(X.long(), INDEX), TypeError, "value must be floating point, got torch.int64"),
        (lambda: transfer(X, INDEX.float()), TypeError, "index must be int64, got torch.float32"),
        (lambda: transfer(X, INDEX, 0), ValueError, "step must be at least 1, got 0"),
        (lambda: transfer(X, INDEX, True), TypeError, "step must be a whole number, got True"),
        (lambda: transfer(X, INDEX[:, :0]), ValueError, r"index must be \(1, h, w\), got \(1, 0, 3\)"),
        (lambda: transfer(X, INDEX.to("meta")), ValueError, "index must be on value's device cpu, got meta"),
        (lambda: transfer(X, INDEX, 3), ValueError, r"value must be \(B, C, 3 h', 3 w'\), got \(1, 2, 4, 4\)"),
        (lambda: transfer(X, INDEX[0]), ValueError, r"index must be \(1, h, w\), got \(3, 3\)"),
        (lambda: transfer(X, INDEX + 4, 2), ValueError, r"index must be in \[0, 4\), got 4 to 4"),
        (lambda: transfer(X, INDEX - 1), ValueError, r"index must be in \[0, 16\), got -1 to -1"),
    ],
)
def test_what_is_refused(call: Callable[[], object], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.gpu
def test_on_cuda() -> None:
    """Oracle: the CPU."""
    query, key = randn(2, 8, 9, 10), randn(2, 8, 11, 7, seed=1)
    index, score = search(query, key)
    found = search(query.cuda(), key.cuda())
    assert torch.equal(found[0].cpu(), index)
    torch.testing.assert_close(found[1].cpu(), score, rtol=0, atol=1e-12)
    value = randn(2, 3, 22, 14, seed=2)
    torch.testing.assert_close(transfer(value.cuda(), found[0], 2).cpu(), transfer(value, index, 2), rtol=0, atol=1e-12)
