"""Laws of attention and of DETR's transformer, for shapes and numbers that Hypothesis chooses."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib.blocks.attention import MultiHeadAttention, attend
from course_lib.blocks.positions import sine, sine_of
from course_lib.blocks.transformer import Decoder, Encoder
from course_lib.plain.attention import sine_loop

FEW = settings(max_examples=25, deadline=None)
SIZES = {
    "queries": st.integers(1, 6),
    "keys": st.integers(1, 7),
    "channels": st.integers(1, 5),
    "seed": st.integers(0, 99),
    "learns": st.booleans(),
}
"""learns: the bias asks for a gradient, for which another form is taken."""


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def drawn(module: nn.Module, seed: int) -> Any:
    """The module in float64, all parameters drawn."""
    torch.manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return module


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


def inputs(queries: int, keys: int, channels: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((2, queries, channels), (2, keys, channels), (2, keys, 3))
    q, k, v = (numbers(*shape, seed=3 * seed + i) for i, shape in enumerate(shapes))
    return q, k, v


@FEW
@given(**SIZES)
def test_what_is_read_is_a_mean(queries: int, keys: int, channels: int, seed: int, learns: bool) -> None:
    """Laws: weights are not negative and sum to 1, or are all 0 where nothing may be read; nothing that is read lies
    outside the values that may be; equal values come back, and a number added to all scores changes nothing.
    """
    q, k, v = inputs(queries, keys, channels, seed)
    mask, bias = masks(2, queries, keys, seed=seed), numbers(queries, keys, seed=seed).requires_grad_(learns)
    out, weights = attend(q, k, v, mask, bias, weights=True)
    fast = attend(q, k, v, mask, bias)
    close(fast, out)
    readable = (~mask).any(-1)
    assert (weights >= 0).all()
    assert not weights[mask].any()
    close(weights.sum(-1), readable.double())
    assert not fast[~readable].any()
    shown = (
        torch.where(mask[..., None], torch.inf, v[:, None]).amin(2),
        torch.where(mask[..., None], -torch.inf, v[:, None]),
    )
    least, most = shown[0], shown[1].amax(2)
    assert ((fast >= least - 1e-12) & (fast <= most + 1e-12))[readable].all()
    close(attend(q, k, torch.ones_like(v), mask, bias)[readable], torch.ones_like(fast[readable]))
    close(attend(q, k, v, mask, bias + 5), fast)


@FEW
@given(**SIZES)
def test_keys_have_no_order(queries: int, keys: int, channels: int, seed: int, learns: bool) -> None:
    """Laws: keys shuffled with their values, masks and biases change nothing; shuffled queries shuffle the results."""
    q, k, v = inputs(queries, keys, channels, seed)
    mask, bias = masks(2, queries, keys, seed=seed), numbers(queries, keys, seed=seed).requires_grad_(learns)
    generator = torch.Generator().manual_seed(seed)
    order, among = torch.randperm(keys, generator=generator), torch.randperm(queries, generator=generator)
    expected = attend(q, k, v, mask, bias)
    close(attend(q, k[:, order], v[:, order], mask[..., order], bias[..., order]), expected)
    close(attend(q[:, among], k, v, mask[:, among], bias[among]), expected[:, among])


@FEW
@given(**SIZES)
def test_what_may_not_be_read_does_not_matter(queries: int, keys: int, channels: int, seed: int, learns: bool) -> None:
    """Laws: a masked key and its value may be anything and get a gradient of 0; without them the result is the same;
    a query that may read nothing gets 0, and its gradients are numbers.
    """
    q, k, v = (x.requires_grad_() for x in inputs(queries, keys, channels, seed))
    gone = masks(keys, seed=seed)
    bias = numbers(queries, keys, seed=seed).requires_grad_(learns)
    out = attend(q, k, v, gone.expand(1, keys), bias)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    assert all(grad.isfinite().all() for grad in grads)
    assert not any(grad[:, gone].any() for grad in grads[1:])
    other, another = (torch.where(gone[:, None], 1e3 * numbers(2, keys, x.shape[2], seed=7), x) for x in (k, v))
    close(attend(q, other, another, gone.expand(1, keys), bias), out)
    close(attend(q, k[:, ~gone], v[:, ~gone], bias=bias[:, ~gone]), out)
    if gone.all():
        assert not out.any()


@FEW
@given(heads=st.sampled_from([1, 2, 4]), tokens=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_batch_is_its_members(heads: int, tokens: int, seed: int) -> None:
    """Laws: each of a batch for itself, with its own padding; padding is as if the tokens were not there."""
    module, x = drawn(MultiHeadAttention(8, heads), seed), numbers(3, tokens, 8, seed=seed)
    padding = masks(3, tokens, seed=seed)
    padding[:, 0] = False
    whole = module(x, padding=padding)
    for one, lost, found in zip(x, padding, whole, strict=True):
        close(module(one[None], padding=lost[None])[0], found)
        close(module(one[None], one[None, ~lost])[0], found)


@FEW
@given(cells=st.integers(1, 6), slots=st.integers(1, 5), seed=st.integers(0, 99), pre_norm=st.booleans())
def test_tokens_without_positions_have_no_order(cells: int, slots: int, seed: int, pre_norm: bool) -> None:
    """Laws: an encoder shuffles its results as its tokens; a decoder's queries shuffle with their positions, and
    cells shuffled with their positions and padding change nothing.
    """
    encoder, decoder = (drawn(made(2, 8, 2, 12, pre_norm=pre_norm), seed) for made in (Encoder, Decoder))
    x, places = numbers(2, cells, 8, seed=seed), numbers(2, cells, 8, seed=seed + 1)
    queries, where = numbers(2, slots, 8, seed=seed + 2), numbers(slots, 8, seed=seed + 3)
    padding = masks(2, cells, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    order, among = torch.randperm(cells, generator=generator), torch.randperm(slots, generator=generator)
    close(encoder(x[:, order], padding=padding[:, order]), encoder(x, padding=padding)[:, order])
    expected = decoder(queries, x, where, places, padding)
    close(decoder(queries[:, among], x, where[among], places, padding), expected[:, :, among])
    close(decoder(queries, x[:, order], where, places[:, order], padding[:, order]), expected)


@FEW
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    seed=st.integers(0, 99),
    channels=st.sampled_from([4, 8, 20]),
    temperature=st.sampled_from([20.0, 10000.0]),
)
def test_positions_count_what_is_no_padding(
    height: int, width: int, seed: int, channels: int, temperature: float
) -> None:
    """Oracle: the loop over cells, for any mask. Law: padding at the right and below leaves the others' positions."""
    mask = masks(2, height, width, seed=seed)
    found = sine(mask, channels, temperature, dtype=torch.float64)
    close(found, torch.stack([sine_loop(one, channels, temperature) for one in mask]))
    own = torch.zeros(1, height, width, dtype=torch.bool)
    padded = nn.functional.pad(own, (0, 3, 0, 2), value=True)
    within = sine(padded, channels, dtype=torch.float64)[..., :height, :width]
    close(within, sine(own, channels, dtype=torch.float64))


@FEW
@given(a=st.floats(-50, 50), b=st.floats(-50, 50), move=st.floats(-20, 20), width=st.sampled_from([2, 6, 64]))
def test_sines_tell_distances(a: float, b: float, move: float, width: int) -> None:
    """Laws: every vector has the length sqrt(width / 2), and the product of two tells their distance alone."""
    x = sine_of(torch.tensor([a, b, a + move, b + move], dtype=torch.float64), width)
    close(x.square().sum(-1), torch.full((4,), width / 2, dtype=torch.float64))
    torch.testing.assert_close(x[0] @ x[1], x[2] @ x[3], rtol=0, atol=1e-9)
