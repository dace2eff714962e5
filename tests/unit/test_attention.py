"""Attention and DETR's transformer. Oracles: torch.nn's modules, the loops one sees through, a process's memory."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_lib.blocks.attention import MultiHeadAttention, attend
from course_lib.blocks.mlp import MLP
from course_lib.blocks.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer, FeedForward
from course_lib.plain.attention import attention_loop, multi_head_loop

WIDTH, HEADS, HIDDEN = 24, 3, 40
TORCH = {
    "self_attn.in_proj_": "attention.qkv.",
    "self_attn.out_proj": "attention.out",
    "linear1": "feed.first",
    "linear2": "feed.second",
}
TORCH_DECODER = TORCH | {
    "self_attn.in_proj_": "self_attention.qkv.",
    "self_attn.out_proj": "self_attention.out",
    "multihead_attn.in_proj_": "cross_attention.qkv.",
    "multihead_attn.out_proj": "cross_attention.out",
}


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def drawn(module: Any, seed: int = 0) -> Any:
    """The module in float64, every parameter drawn, those that start at 0 or 1 too."""
    torch.manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return module


def attention(heads: int = HEADS, dropout: float = 0.0) -> MultiHeadAttention:
    made: MultiHeadAttention = drawn(MultiHeadAttention(WIDTH, heads, dropout=dropout))
    return made


def mask_of(*shape: int, seed: int = 3) -> Tensor:
    """About a third True; no row wholly, but for the very first."""
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.35
    mask[..., 1:, 0] = False
    mask.view(-1, shape[-1])[0] = True
    return mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("learns", [False, True])
def test_attend_is_the_loop_with_gradients(masked: bool, biased: bool, learns: bool) -> None:
    """Oracle: the loop, in float64, of the fast form and of the one that returns weights; also for the bias."""
    q, k, v = (numbers(*shape, seed=i).requires_grad_() for i, shape in enumerate(((4, 5), (6, 5), (6, 3))))
    mask = mask_of(4, 6) if masked else None
    bias = numbers(4, 6, seed=7).requires_grad_(learns) if biased else None
    upstream = numbers(4, 3, seed=9)
    learned = [x for x in (q, k, v, bias) if x is not None and x.requires_grad]

    def gradients(out: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((out * upstream).sum(), learned))

    expected, shares = attention_loop(q, k, v, mask, bias)
    wanted = gradients(expected)
    fast = attend(q, k, v, mask, bias)
    seen, weights = attend(q, k, v, mask, bias, weights=True)
    for out in (fast, seen):
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(gradients(out), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights, shares, rtol=0, atol=1e-12)


def test_more_and_fewer_axes_are_the_same_attention() -> None:
    """Oracle: one matrix at a time; 2 to 5 axes, masks of fewer axes."""
    q, k, v = (numbers(2, 3, 2, *shape, seed=i) for i, shape in enumerate(((4, 5), (6, 5), (6, 3))))
    mask, bias = mask_of(4, 6), numbers(2, 1, 6, seed=5)
    whole = attend(q, k, v, mask, bias)
    for a in range(2):
        torch.testing.assert_close(attend(q[a], k[a], v[a], mask, bias), whole[a])
        for b in range(3):
            torch.testing.assert_close(attend(q[a, b], k[a, b], v[a, b], mask, bias), whole[a, b])
            for c in range(2):
                one = attend(q[a, b, c], k[a, b, c], v[a, b, c], mask, bias[c])
                torch.testing.assert_close(one, whole[a, b, c])


@pytest.mark.parametrize("case", ["self", "keys alone", "keys and values", "queries as keys", "three inputs"])
def test_multi_head_attention_is_torchs(case: str) -> None:
    """Oracle: torch.nn.MultiheadAttention with the same numbers: results, weights of every head, gradients."""
    ours = attention()
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    named = {"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias}
    theirs.load_state_dict(named | {"out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias})
    x, y, z = (numbers(2, n, WIDTH, seed=n) for n in (5, 7, 8))
    cases = {"self": (x, None, None), "keys alone": (x, y, None), "keys and values": (x, y, y)}
    cases |= {"queries as keys": (z, None, z * 2), "three inputs": (x, y, y * 2)}
    query, key, value = cases[case]
    told = query if key is None else key
    padding = mask_of(2, told.shape[1])
    padding[0] = False
    padding[0, 2:4] = True
    mask = torch.rand(query.shape[1], told.shape[1]) < 0.2
    mask[:, :2] = False
    padding[1, :2] = False
    expected, shares = theirs(
        query,
        told,
        told if value is None else value,
        key_padding_mask=padding,
        attn_mask=mask,
        average_attn_weights=False,
    )
    found, weights = ours(query, key, value, padding, mask, weights=True)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(weights, shares)
    fast = ours(query, key, value, padding, mask)
    torch.testing.assert_close(fast, expected)
    fast.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.qkv.weight.grad, theirs.in_proj_weight.grad)
    torch.testing.assert_close(ours.qkv.bias.grad, theirs.in_proj_bias.grad)
    torch.testing.assert_close(ours.out.weight.grad, theirs.out_proj.weight.grad)


def test_multi_head_attention_is_the_loop_over_heads() -> None:
    """Oracle: one head after the other, with gradients; also join(attend(project(x)))."""
    ours, x, mask = attention(), numbers(4, WIDTH, seed=1).requires_grad_(), mask_of(4, 4)
    packed, out = (ours.qkv.weight, ours.qkv.bias), (ours.out.weight, ours.out.bias)
    expected = multi_head_loop(x, x, x, packed, out, HEADS, mask)
    (wanted,) = torch.autograd.grad(expected.square().sum(), x)
    for found in (ours(x[None], mask=mask)[0], ours.join(attend(*ours.project(x[None]), mask))[0]):
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], wanted)


def test_it_is_drawn_as_torchs() -> None:
    """Oracle: the same random numbers in torch's order: qkv Xavier, biases 0."""
    torch.manual_seed(0)
    ours = MultiHeadAttention(64, 4)
    limit = (6 / (64 + 3 * 64)) ** 0.5
    assert 0.97 * limit < ours.qkv.weight.abs().max() <= limit
    assert not ours.qkv.bias.any()
    assert not ours.out.bias.any()
    plain = MultiHeadAttention(8, 2, bias=False)
    assert plain(torch.zeros(1, 3, 8)).shape == (1, 3, 8)
    assert list(plain.state_dict()) == ["qkv.weight", "out.weight"]


@pytest.mark.parametrize("seen", [False, True])
def test_dropout_keeps_the_mean(seen: bool) -> None:
    """Oracle: values of 1 give the kept weights' sum, whose mean is 1; a module drops only in training."""
    torch.manual_seed(0)
    q, k = numbers(64, 20, 8), numbers(64, 30, 8, seed=1)
    v = torch.ones(64, 30, 1, dtype=torch.float64)
    found: Any = attend(q, k, v, weights=seen, dropout=0.5)  # type: ignore[call-overload]
    sums = found[0] if seen else found
    assert sums.std() > 0.1
    assert abs(sums.mean() - 1) < 0.05
    module, x = attention(dropout=0.5), numbers(1, 5, WIDTH)
    assert not torch.equal(module(x), module(x))
    assert torch.equal(module.eval()(x), attention()(x))


@pytest.mark.parametrize("seen", [False, True])
def test_half_precision(seen: bool) -> None:
    """Oracle: float32's result; under autocast the softmax is made in float32."""
    module, x = attention().float(), numbers(2, 9, WIDTH, dtype=torch.float32)
    bias, mask = numbers(HEADS, 9, 9, dtype=torch.float32), mask_of(2, 1, 9, 9)
    expected = module(x, bias=bias, mask=mask).detach()
    with torch.autocast("cpu", torch.bfloat16):
        found: Any = module(x, bias=bias, mask=mask, weights=seen)
    if seen:
        found, weights = found
        assert weights.dtype == torch.float32
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))
    whole: Any = module.bfloat16()(x.bfloat16(), bias=bias.bfloat16(), mask=mask)
    torch.testing.assert_close(whole.float(), expected, rtol=0, atol=0.1 * float(expected.abs().max()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of a process is read from Linux's /proc")
def test_many_tokens_need_no_matrix_of_pairs() -> None:
    """Oracle: the peak of a fresh process. 4,000 tokens have 16 million pairs for each head: 512 MB for eight."""
    code = """
import re, torch
from course_lib.blocks.attention import MultiHeadAttention
module = MultiHeadAttention(64, 8).eval()
padding = torch.zeros(1, 4000, dtype=torch.bool)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
with torch.no_grad():
    module(torch.randn(1, 100, 64), padding=padding[:, :100])
    before = peak()
    module(torch.randn(1, 4000, 64), padding=padding)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"q": torch.zeros(3, 4, dtype=torch.int64)},
        TypeError,
        "q must be a floating point torch.Tensor, got torch.int64",
    ),
    ({"v": None}, TypeError, "v must be a floating point torch.Tensor, got NoneType"),
    ({"q": torch.zeros(4)}, ValueError, r"q must be \(..., tokens, channels\) with q's leading sizes, got \(4,\)"),
    ({"k": torch.zeros(2, 6, 4)}, ValueError, r"k must be .* got \(2, 6, 4\) beside q \(3, 4\)"),
    ({"k": torch.zeros(6, 5)}, ValueError, "k must have the channels of q, 4, at least 1, got 5"),
    ({"v": torch.zeros(5, 2)}, ValueError, "v must have one row for each of the 6 keys, got 5"),
    ({"mask": torch.zeros(3, 6)}, TypeError, "mask must be bool, True where a key may not be read, got torch.float32"),
    ({"mask": torch.zeros(6, 3, dtype=torch.bool)}, ValueError, r"mask must broadcast to .* = \(3, 6\), got \(6, 3\)"),
    ({"mask": torch.zeros(1, 3, 6, dtype=torch.bool)}, ValueError, r"mask must .* got \(1, 3, 6\)"),
    ({"bias": torch.zeros(3, 6, dtype=torch.bool)}, TypeError, "bias must be floating point, got torch.bool"),
    ({"bias": torch.zeros(2, 6)}, ValueError, r"bias must broadcast to .* got \(2, 6\)"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), REFUSED)
def test_attend_refuses_by_name(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    fine: dict[str, Any] = {"q": torch.zeros(3, 4), "k": torch.zeros(6, 4), "v": torch.zeros(6, 2)}
    with pytest.raises(error, match=message):
        attend(**(fine | wrong))


def test_modules_refuse_by_name() -> None:
    for wrong, message in (
        ({"width": 8, "heads": 3}, "heads must divide width, 8, got 3"),
        ({"width": 0, "heads": 1}, "width must be at least 1, got 0"),
        ({"width": 8, "heads": 2, "dropout": 1.0}, "dropout must be a number from 0 to below 1, got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            MultiHeadAttention(**wrong)
    module, x = MultiHeadAttention(8, 2), torch.zeros(2, 3, 8)
    for given, message in (
        (((torch.zeros(2, 3, 7),)), r"x must be \(N, tokens, 8\), got \(2, 3, 7\)"),
        ((x, torch.zeros(3, 8)), r"key must be \(N, tokens, 8\), got \(3, 8\)"),
        ((x, x[:1], x[:1]), "key must have query's batch, 2, got 1"),
        ((x, None, None, torch.zeros(2, 4, dtype=torch.bool)), r"padding must be \(N, keys\) = \(2, 3\), got \(2, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            module(*given)
    with pytest.raises(TypeError, match="padding must be bool"):
        module(x, padding=torch.zeros(2, 3))
    with pytest.raises(TypeError, match=r"mask must be bool, True where a key may not be read, got torch\.float32"):
        module(x, padding=torch.zeros(2, 3, dtype=torch.bool), mask=torch.zeros(3, 3))
    with pytest.raises(TypeError, match=r"x must be a floating point torch\.Tensor, got list"):
        module([1.0])
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        MLP(2, 3, 4, 0)
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        Decoder(0, 8, 2, 8)
    with pytest.raises(ValueError, match=r"activation must be one of .* got 'tanh'"):
        FeedForward(8, 8, "tanh")  # type: ignore[arg-type]


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    result = {}
    for name, value in state.items():
        start = next((start for start in names if name.startswith(start)), "")
        result[names.get(start, "") + name.removeprefix(start)] = value
    return result


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_are_torchs(pre_norm: bool, activation: Any) -> None:
    """Oracle: torch.nn.TransformerEncoderLayer and TransformerDecoderLayer, which know no positions."""
    options = {"activation": activation, "batch_first": True, "norm_first": pre_norm, "dropout": 0.0}
    x, memory = numbers(2, 5, WIDTH), numbers(2, 7, WIDTH, seed=1)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[0, 4:] = True
    theirs: Any = drawn(nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, **options))
    ours: Any = EncoderLayer(WIDTH, HEADS, HIDDEN, pre_norm=pre_norm, activation=activation).double()
    ours.load_state_dict(renamed(theirs.state_dict(), TORCH))
    found, shares = ours(memory, padding=padding)
    assert shares is None
    torch.testing.assert_close(found, theirs(memory, src_key_padding_mask=padding))
    theirs = drawn(nn.TransformerDecoderLayer(WIDTH, HEADS, HIDDEN, **options))
    ours = DecoderLayer(WIDTH, HEADS, HIDDEN, pre_norm=pre_norm, activation=activation).double()
    ours.load_state_dict(renamed(theirs.state_dict(), TORCH_DECODER))
    found, shares = ours(x, memory, padding=padding, weights=True)
    torch.testing.assert_close(found, theirs(x, memory, memory_key_padding_mask=padding))
    assert shares.shape == (2, HEADS, 5, 7)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_positions_go_to_queries_and_keys_alone(pre_norm: bool) -> None:
    """Oracle: the layer written out, with torch's attention called with three inputs."""
    layer = drawn(DecoderLayer(WIDTH, HEADS, HIDDEN, pre_norm=pre_norm))
    x, places = numbers(2, 5, WIDTH), numbers(2, 5, WIDTH, seed=1)
    memory, where = numbers(2, 7, WIDTH, seed=2), numbers(2, 7, WIDTH, seed=3)

    def around(x: Tensor, norm: nn.Module, part: Any) -> Tensor:
        result: Tensor = x + part(norm(x)) if pre_norm else norm(x + part(x))
        return result

    y = around(x, layer.norm1, lambda y: layer.self_attention(y + places, y + places, y))
    y = around(y, layer.norm2, lambda y: layer.cross_attention(y + places, memory + where, memory))
    y = around(y, layer.norm3, layer.feed)
    torch.testing.assert_close(layer(x, memory, places, where)[0], y)
    coder = drawn(EncoderLayer(WIDTH, HEADS, HIDDEN, pre_norm=pre_norm))
    y = around(x, coder.norm1, lambda y: coder.attention(y + places, y + places, y))
    torch.testing.assert_close(coder(x, places)[0], around(y, coder.norm2, coder.feed))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_stacks_are_their_layers(pre_norm: bool) -> None:
    """Oracle: the layers called one by one; every layer of a decoder is read through its one norm."""
    x, memory, padding = numbers(2, 5, WIDTH), numbers(2, 7, WIDTH, seed=2), mask_of(2, 7)
    encoder = drawn(Encoder(2, WIDTH, HEADS, HIDDEN, pre_norm=pre_norm))
    first, a = encoder.layers[0](memory, padding=padding, weights=True)
    second, b = encoder.layers[1](first, padding=padding, weights=True)
    found, shares = encoder(memory, padding=padding, weights=True)
    assert (encoder.norm is not None) == pre_norm
    torch.testing.assert_close(found, encoder.norm(second) if pre_norm else second)
    torch.testing.assert_close(shares, [a, b])
    torch.testing.assert_close(encoder(memory, padding=padding), found)
    decoder = drawn(Decoder(2, WIDTH, HEADS, HIDDEN, pre_norm=pre_norm))
    first, a = decoder.layers[0](x, memory, padding=padding, weights=True)
    second, b = decoder.layers[1](first, memory, padding=padding, weights=True)
    found, shares = decoder(x, memory, padding=padding, weights=True)
    torch.testing.assert_close(found, torch.stack((decoder.norm(first), decoder.norm(second))))
    torch.testing.assert_close(shares, [a, b])
    nothing = Encoder(0, WIDTH, HEADS, HIDDEN)
    assert nothing(x) is x


def test_dropout_of_layers() -> None:
    """Oracle: results differ in training, not outside, and are the same as without dropout there."""
    x, memory = numbers(2, 5, WIDTH), numbers(2, 7, WIDTH, seed=2)
    for made in (EncoderLayer, DecoderLayer):
        inputs = (x,) if made is EncoderLayer else (x, memory)
        layer, still = drawn(made(WIDTH, HEADS, HIDDEN, dropout=0.3)), drawn(made(WIDTH, HEADS, HIDDEN))
        assert not torch.equal(layer(*inputs)[0], layer(*inputs)[0])
        assert torch.equal(layer.eval()(*inputs)[0], still(*inputs)[0])


def test_mlp_is_its_layers() -> None:
    """Oracle: matrices by hand; the names are those of DETR's box head."""
    mlp, x = drawn(MLP(3, 5, 2, 3)), numbers(4, 3)
    state = mlp.state_dict()
    for i in range(3):
        x = x @ state[f"layers.{i}.weight"].T + state[f"layers.{i}.bias"]
        x = x.clamp_min(0) if i < 2 else x
    torch.testing.assert_close(mlp(numbers(4, 3)), x)
    assert [tuple(state[f"layers.{i}.weight"].shape) for i in range(3)] == [(5, 3), (5, 5), (2, 5)]
    assert len(MLP(3, 5, 2, 1).layers) == 1


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    """Oracle: the CPU, in float64 and float32, with a row that may read nothing; gradients finite and the same."""
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        x, bias = numbers(2, 9, WIDTH, dtype=dtype), numbers(HEADS, 9, 9, dtype=dtype)
        mask, results = mask_of(2, 1, 9, 9), []
        for device in ("cpu", "cuda"):
            module = attention().to(device, dtype)
            given = x.to(device, copy=True).requires_grad_()
            out = module(given, bias=bias.to(device), mask=mask.to(device))
            seen, weights = module(given, bias=bias.to(device), mask=mask.to(device), weights=True)
            slopes = [torch.autograd.grad(y.square().sum(), given)[0].cpu() for y in (out, seen)]
            results.append([out.detach().cpu(), seen.detach().cpu(), weights.detach().cpu(), *slopes])
        for here, there in zip(*results, strict=True):
            torch.testing.assert_close(there, here, rtol=0, atol=tolerance * max(1.0, float(here.abs().max())))
