"""The vision transformer and what it costs. Oracles: the loop one sees through, arithmetic, torch's own counter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.blocks.vit import Block, ViT, draw, vit_base, vit_huge, vit_large, vit_small, vit_tiny
from course_lib.blocks.vit_costs import attention_pairs, block_costs, vit_costs
from course_lib.plain.vit import vit_block_loop

TINY: dict[str, Any] = {"width": 12, "depth": 3, "heads": 3, "patch": 4, "picture": (16, 12), "classes": 5}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(module: Any, seed: int = 0) -> Any:
    """The module in float64 and eval mode, every parameter drawn, those that start at 0 or 1 too."""
    torch.manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return module


def tiny(**options: Any) -> ViT:
    made: ViT = drawn(ViT(**TINY | options))
    return made


@pytest.mark.parametrize("hidden", [None, 7])
def test_a_block_is_the_loop_with_gradients(hidden: int | None) -> None:
    """Oracle: the loop, token by token; the returned weights' rows sum to 1."""
    block = drawn(Block(6, 2, hidden))
    x = numbers(1, 5, 6).requires_grad_()
    tensors = dict(block.named_parameters())
    made, (seen, read) = block(x), block(x, weights=True)
    expected = vit_block_loop(x[0], tensors, heads=2)
    upstream = numbers(5, 6, seed=1)
    wanted = torch.autograd.grad((expected * upstream).sum(), (x, *tensors.values()))
    for one in (made, seen):
        torch.testing.assert_close(one[0], expected, rtol=0, atol=1e-12)
        ours = torch.autograd.grad((one[0] * upstream).sum(), (x, *tensors.values()), retain_graph=True)
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)
    assert read.shape == (1, 2, 5, 5)
    torch.testing.assert_close(read.sum(-1), torch.ones(1, 2, 5, dtype=torch.float64))
    assert tensors["feed_forward.first.weight"].shape[0] == (hidden or 24)


def test_the_other_gelu() -> None:
    """Oracle: torch's approximation by tanh, in the place of the exact one."""
    exact, approximate = (drawn(Block(6, 2, activation=kind)) for kind in ("gelu", "gelu_tanh"))
    x = numbers(1, 4, 6)
    y = approximate.feed_forward_norm(x + approximate.attention(approximate.attention_norm(x)))
    hidden = nn.functional.gelu(approximate.feed_forward.first(y), approximate="tanh")
    between = x + approximate.attention(approximate.attention_norm(x))
    torch.testing.assert_close(approximate(x), between + approximate.feed_forward.second(hidden))
    assert 1e-6 < (exact(x) - approximate(x)).abs().max() < 1e-2


def test_the_sequence_by_hand() -> None:
    """Oracle: the paper's equations 1 to 4 written out, at the size of the positions."""
    model = tiny()
    images = numbers(2, 3, 16, 12, seed=1)
    patches = model.embedding.projection(images).flatten(2).mT
    assert model.class_token is not None
    assert model.head is not None
    x = torch.cat((model.class_token.expand(2, 1, 12), patches), 1) + model.positions
    torch.testing.assert_close(model.sequence(images)[0], x)
    for block in model.blocks:
        x = block(x)
    x = nn.functional.layer_norm(x, (12,), model.norm.weight, model.norm.bias, 1e-6)
    tokens, grid = model.tokens(images)
    assert grid == (4, 3)
    torch.testing.assert_close(tokens, x)
    torch.testing.assert_close(model.features(images), x[:, :1])
    torch.testing.assert_close(model(images), model.head(x[:, 0]))
    torch.testing.assert_close(model.map(images), x[:, 1:].mT.reshape(2, 12, 4, 3))


def test_the_epsilon_of_all_norms() -> None:
    """Oracle: the released networks': 1e-6."""
    assert {m.eps for m in ViT(**TINY).modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_pooling_by_the_mean() -> None:
    """Oracle: the mean over the patches; there is no class token."""
    model = tiny(pooling="mean")
    images = numbers(2, 3, 20, 12)
    tokens, grid = model.tokens(images)
    assert (tokens.shape, grid, model.extras, model.class_token) == ((2, 15, 12), (5, 3), 0, None)
    assert model.head is not None
    torch.testing.assert_close(model(images), model.head(tokens.mean(1)))


def test_a_distilled_network() -> None:
    """Oracle: each head on its own token; the answer is their mean, with and without heads."""
    model = tiny(distilled=True)
    images = numbers(2, 3, 16, 12)
    assert model.positions.shape == (1, 14, 12)
    assert model.head is not None
    assert model.distillation_head is not None
    tokens, _ = model.tokens(images)
    both = torch.stack((model.head(tokens[:, 0]), model.distillation_head(tokens[:, 1])), 1)
    torch.testing.assert_close(model.logits(images), both)
    torch.testing.assert_close(model(images), both.mean(1))
    assert model.map(images).shape == (2, 12, 4, 3)
    bare = tiny(distilled=True, classes=None)
    torch.testing.assert_close(bare(images), bare.tokens(images)[0][:, :2].mean(1))
    with pytest.raises(ValueError, match="this network has no head"):
        bare.logits(images)


@pytest.mark.parametrize("size", [(4, 4), (16, 12), (23, 41), (12, 16)])
def test_every_size_gives_gradients_to_all(size: tuple[int, int]) -> None:
    """Oracle: every parameter, and every pixel of a whole patch, has a finite gradient other than 0."""
    model = tiny(distilled=True)
    images = numbers(2, 3, *size).requires_grad_()
    (model(images).square().sum() + model.map(images).square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert images.grad is not None
    assert (images.grad[..., : size[0] // 4 * 4, : size[1] // 4 * 4] != 0).all()


def test_attention_maps() -> None:
    """Oracle: the blocks in turn; rows sum to 1."""
    model = tiny()
    images = numbers(2, 3, 8, 20)
    maps, grid = model.attention_maps(images)
    assert (grid, len(maps)) == ((2, 5), 3)
    x, _ = model.sequence(images)
    for block, read in zip(model.blocks, maps, strict=True):
        x, expected = block(x, weights=True)
        assert torch.equal(read, expected)
        torch.testing.assert_close(read.sum(-1), torch.ones(2, 3, 11, dtype=torch.float64))


def test_dropout_acts_in_training_only() -> None:
    model = ViT(**TINY, dropout=0.3)
    images = numbers(1, 3, 16, 12).float()
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))
    torch.testing.assert_close(model(images), drawless(model)(images))


def drawless(model: ViT) -> ViT:
    """The same network, made without dropout."""
    other = ViT(**TINY)
    other.load_state_dict(model.state_dict())
    return other.eval()


def test_autocast_and_half_precision() -> None:
    """Oracle: the same network in float32, to the digits of bfloat16."""
    torch.manual_seed(0)
    model = ViT(**TINY).eval()
    images = numbers(2, 3, 24, 12).float()
    with torch.no_grad():
        expected = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(images)
        whole = model.bfloat16()(images.bfloat16())
    assert whole.dtype == torch.bfloat16
    for made in (mixed, whole):
        torch.testing.assert_close(made.float(), expected, rtol=0, atol=0.02)


def test_how_weights_are_drawn() -> None:
    """Oracle: a normal distribution of 0.02 cut at two deviations, whose deviation is 0.0176; zeros, ones."""
    torch.manual_seed(0)
    model = ViT(96, 2, 3, patch=8, picture=(64, 64))
    tensors = dict(model.named_parameters())
    for name in ("positions", "blocks.0.attention.qkv.weight", "head.weight"):
        assert tensors[name].abs().max() <= 0.04
        assert tensors[name].std().item() == pytest.approx(0.0176, rel=0.03)
    assert all((m.bias == 0).all() for m in model.modules() if isinstance(m, nn.Linear))
    before = model.embedding.projection.weight.clone()
    draw(model)
    assert torch.equal(model.embedding.projection.weight, before)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (vit_tiny, 5_717_416),
        (vit_small, 22_050_664),
        (vit_base, 86_567_656),
        (vit_large, 304_326_632),
        (vit_huge, 632_045_800),
    ],
)
def test_sizes(make: Callable[..., ViT], count: int) -> None:
    """Oracles: the parameters of the published networks, and the sum of the shapes by hand."""
    with torch.device("meta"):
        model = make()
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    d, layers, patch = model.width, len(model.blocks), model.embedding.patch
    block = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d)
    tokens = (224 // patch) ** 2 + 1
    assert count == 3 * patch**2 * d + d + d + tokens * d + layers * block + 2 * d + 1000 * (d + 1)
    with torch.device("meta"):
        assert model(torch.empty(1, 3, 224, 224)).shape == (1, 1000)


def counted(model: nn.Module, *size: int) -> int:
    """Multiply-adds as torch counts them; nothing is computed."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, *size, device="meta"))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("size", [(224, 224), (100, 340)])
@pytest.mark.parametrize("options", [{"distilled": True}, {"pooling": "mean"}, {"hidden": 100, "classes": None}])
def test_costs_are_what_torch_counts(options: dict[str, Any], size: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = vit_tiny(**{"depth": 2} | options).eval()
    assert sum(vit_costs(model, size).values()) == counted(model, *size)


def test_costs_of_the_published_networks() -> None:
    """Oracle: 17.56 GMAC of B/16, and attention's share of its blocks, from the formulas by another hand."""
    with torch.device("meta"):
        model = vit_base()
    assert sum(vit_costs(model, (224, 224)).values()) == pytest.approx(17.56e9, rel=5e-4)
    for side, share in {224: 0.041, 384: 0.111, 800: 0.35, 1333: 0.60}.items():
        block = block_costs((side // 16) ** 2 + 1, 768)
        assert block["attention"] / sum(block.values()) == pytest.approx(share, abs=6e-3)
    # attention costs as much as everything else where there are six tokens for each channel
    even = block_costs(6 * 768, 768)
    assert even["attention"] == even["projections"] + even["feed_forward"]


def test_pairs() -> None:
    """Oracle: counts by hand."""
    assert attention_pairs({"patch": 16}) == {("patch", "patch"): 256}
    pairs = attention_pairs({"patch": 16, "det": 4})
    assert pairs == {("patch", "patch"): 256, ("patch", "det"): 64, ("det", "patch"): 64, ("det", "det"): 16}
    assert sum(attention_pairs({"patch": 50 * 83, "det": 100, "class": 1}).values()) == 18_071_001


def test_bad_arguments_are_named() -> None:
    for options, text in (
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"heads": 5}, "heads must divide width, 12, got 5"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"picture": 16}, r"picture must be \(height, width\), got 16"),
        ({"picture": (16, 3)}, "picture must be at least 4, got 3"),
        ({"pooling": "max"}, "pooling must be one of 'class', 'mean', got 'max'"),
        ({"pooling": "mean", "distilled": True}, "distilled needs pooling='class'"),
        ({"activation": "tanh"}, "activation must be one of"),
        ({"dropout": 1.0}, "dropout"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"patch": 0}, "patch must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=text):
            ViT(**TINY | options)
    model = ViT(**TINY)
    with pytest.raises(ValueError, match="images must hold a patch of 4 x 4, got 3 x 16"):
        model(torch.zeros(1, 3, 3, 16))
    with pytest.raises(TypeError, match="images must be a floating point"):
        model(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match="picture must be at least 4, got 2"):
        vit_costs(model, (2, 16))
    with pytest.raises(ValueError, match="det must be at least 0, got -1"):
        attention_pairs({"det": -1})
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        block_costs(0, 4)
