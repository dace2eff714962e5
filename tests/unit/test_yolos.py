"""YOLOS and DETR on a ViT. Oracles: the sequence written out, arithmetic, torch's own counter of multiply-adds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.blocks.patches import interpolate_between
from course_lib.blocks.vit import ViT, vit_tiny
from course_lib.detection.families.detr.detr import DETR
from course_lib.detection.families.yolos import costs, detr_vit
from course_lib.detection.families.yolos.yolos import YOLOS, yolos_b, yolos_s, yolos_s_dwr, yolos_ti
from course_lib.detection.prediction import IMAGENET

TINY: dict[str, Any] = {"width": 12, "depth": 3, "heads": 3, "patch": 4, "queries": 5, "classes": 4}
SHOWN: dict[str, Any] = {"learned": (16, 12), "middle": (12, 16)}
NECK: dict[str, Any] = {"width": 8, "heads": 2, "hidden": 16, "encoder": 2, "decoder": 2, "queries": 5, "classes": 4}


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


def tiny(**options: Any) -> YOLOS:
    made: YOLOS = drawn(YOLOS(**TINY | SHOWN | options))
    return made


def on_vit(**options: Any) -> DETR:
    body = ViT(12, 2, 3, patch=4, picture=(16, 12), classes=None)
    made: DETR = drawn(detr_vit.detr_vit(body, **NECK | options))
    return made


@pytest.mark.parametrize("middle", [None, (12, 16)])
@pytest.mark.parametrize("size", [(16, 12), (24, 8), (12, 16)])
def test_the_sequence_by_hand(size: tuple[int, int], middle: tuple[int, int] | None) -> None:
    """Oracle: tokens joined, positions added, blocks in turn with the middle positions behind all but the last."""
    model = tiny(middle=middle)
    images = numbers(2, 3, *size, seed=1)
    grid = (size[0] // 4, size[1] // 4)
    patches = model.embedding.projection(images).flatten(2).mT
    x = torch.cat((model.class_token.expand(2, 1, 12), patches, model.det_tokens.expand(2, 5, 12)), 1)
    x = x + interpolate_between(model.positions, (4, 3), grid, 1, 5)
    torch.testing.assert_close(model.sequence(images)[0], x)
    for place, block in enumerate(model.blocks):
        x = block(x)
        if place < 2 and model.middle_positions is not None:
            x = x + interpolate_between(model.middle_positions[place], (3, 4), grid, 1, 5)
    x = nn.functional.layer_norm(x, (12,), model.norm.weight, model.norm.bias, 1e-6)
    tokens, found = model.tokens(images)
    assert found == grid
    torch.testing.assert_close(tokens, x)
    outputs = model(images)
    assert outputs.keys() == {"logits", "boxes"}
    torch.testing.assert_close(outputs["logits"], model.class_head(x[:, -5:]))
    torch.testing.assert_close(outputs["boxes"], model.box_head(x[:, -5:]).sigmoid())
    maps, _ = model.attention_maps(images)
    assert [read.shape for read in maps] == [(2, 3, x.shape[1], x.shape[1])] * 3
    last = list(model.blocks)[-1]
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images)
    handle.remove()
    torch.testing.assert_close(maps[-1], last(seen[0], weights=True)[1])


def test_the_mask_is_ignored() -> None:
    """Oracle: the outputs without a mask, to the bit; padding itself changes them."""
    model = tiny()
    images = numbers(2, 3, 16, 12)
    mask = torch.zeros(2, 16, 12, dtype=torch.bool)
    mask[1, 8:] = True
    alone = model(images)
    for name, masked in model(images, mask).items():
        assert torch.equal(masked, alone[name])
    padded = nn.functional.pad(images, (0, 4, 0, 4))
    covered = torch.ones(2, 20, 16, dtype=torch.bool)
    covered[:, :16, :12] = False
    assert (model(padded, covered)["logits"] - alone["logits"]).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(4, 4), (16, 12), (21, 35)])
def test_every_size_gives_gradients_to_all(size: tuple[int, int]) -> None:
    """Oracle: every parameter, and every pixel of a whole patch, has a finite gradient other than 0.

    The class token's too: no head reads it, but the others do.
    """
    model = tiny()
    images = numbers(2, 3, *size).requires_grad_()
    outputs = model(images)
    assert (outputs["logits"].shape, outputs["boxes"].shape) == ((2, 5, 4), (2, 5, 4))
    (outputs["logits"].square().sum() + outputs["boxes"].square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert images.grad is not None
    seen = (size[0] // 4 * 4, size[1] // 4 * 4)
    assert (images.grad[..., : seen[0], : seen[1]] != 0).all()
    assert (images.grad[..., seen[0] :, :] == 0).all()


def test_attributes() -> None:
    """Oracle: what every detector of the line says; the released recipes' sides and normalisation."""
    model = tiny(picture=(16, 12))
    assert (model.classes, model.background, model.queries, model.stride) == (4, True, 5, 4)
    assert model.picture == (16, 12)
    with torch.device("meta"):
        models = [make() for make in (yolos_ti, yolos_s, yolos_s_dwr, yolos_b)]
    assert [(m.shorter, m.longer) for m in models] == [(512, 853), (800, 1333), (800, 1333), (800, 1333)]
    assert all((m.classes, m.queries, m.picture, m.stride) == (92, 100, None, 16) for m in models)
    assert all(m.normalisation == IMAGENET for m in models)
    assert {n.eps for m in models for n in m.modules() if isinstance(n, nn.LayerNorm)} == {1e-6}


def test_autocast() -> None:
    """Oracle: the network in float32, to the digits of bfloat16; results keep the images' dtype."""
    torch.manual_seed(0)
    model = YOLOS(**TINY | SHOWN).eval()
    images = numbers(1, 3, 20, 12).float()
    with torch.no_grad():
        expected = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            made = model(images)
    for name, value in made.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0.02)


def test_detr_reads_the_map_of_a_vit() -> None:
    """Oracle: the parts by hand: the ViT's map, then DETR on a body that returns it."""
    model = on_vit()
    images = numbers(2, 3, 20, 16)
    body = model.body
    assert isinstance(body, detr_vit.ViTBody)
    assert (body.channels, body.stride, model.stride) == (12, 4, 4)
    tokens, grid = body.network.tokens(images)
    made: Tensor = body(images)
    torch.testing.assert_close(made, tokens[:, 1:].mT.reshape(2, 12, *grid))

    class Given(nn.Module):
        channels, stride = 12, 4

        def forward(self, _: Tensor) -> Tensor:
            return made

    other = DETR(Given(), **NECK)
    other.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("body.")})
    expected = other.double().eval()(images)
    outputs = model(images)
    assert outputs.keys() == {"logits", "boxes", "aux_logits", "aux_boxes"}
    for name, value in expected.items():
        torch.testing.assert_close(outputs[name], value)
        assert value.isfinite().all()


def test_the_mask_hides_padding_from_detrs_neck_only() -> None:
    """Oracle: with a mask the decoder reads no padded patch; the ViT does read them, as no code says otherwise."""
    model = on_vit()
    images = numbers(1, 3, 16, 16)
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[..., 8:] = True
    inspected = model.inspect(images, mask)
    unread = mask[:, ::4, ::4].flatten(1)[0]
    for read in inspected["decoder_weights"]:
        assert (read[..., unread] == 0).all()
        assert (read[..., ~unread] > 0).all()
    changed = images.clone()
    changed[..., 8:] = 1.0
    assert (model(changed, mask)["logits"] - model(images, mask)["logits"]).abs().max() > 1e-6


def test_gradients_of_detr_on_a_vit() -> None:
    """Oracle: every parameter has a finite gradient other than 0, those of the ViT too."""
    model = on_vit()
    outputs = model(numbers(2, 3, 16, 12))
    torch.autograd.backward(torch.stack([value.square().sum() for value in outputs.values()]).sum())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("size", [(224, 224), (100, 340)])
@pytest.mark.parametrize("make", [yolos_ti, yolos_s_dwr])
def test_costs_of_yolos_are_what_torch_counts(make: Callable[..., YOLOS], size: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = make(depth=3).eval()
    assert sum(costs.yolos_costs(model, size).values()) == counted(model, *size)


@pytest.mark.parametrize("options", [{}, {"encoder": 0, "decoder": 2, "hidden": 100, "queries": 30, "classes": 10}])
def test_costs_of_detr_on_a_vit_are_what_torch_counts(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = detr_vit.detr_vit(vit_tiny(classes=None, depth=2), **options).eval()
    assert sum(costs.detr_vit_costs(model, (100, 340)).values()) == counted(model, 100, 340)


def counted(model: nn.Module, *size: int) -> int:
    """Multiply-adds as torch counts them; nothing is computed."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, *size, device="meta"))
    return int(counter.get_total_flops()) // 2


def test_quadrants_of_yolos() -> None:
    """Oracles: published and measured counts; at 800 x 1333, 4.65% of the pairs of patches and [DET] involve [DET]."""
    with torch.device("meta"):
        small, large = yolos_ti(), yolos_s()
    assert sum(costs.yolos_costs(small, (512, 800)).values()) == pytest.approx(22.6e9, rel=2e-3)
    assert sum(costs.yolos_costs(large, (800, 1200)).values()) == pytest.approx(219.6e9, rel=2e-3)
    assert costs.tokens(small, (800, 1333)) == {"class": 1, "patch": 4150, "det": 100}
    parts = costs.yolos_costs(small, (800, 1333))
    assert parts["patch-patch"] == 12 * 2 * 192 * 4150**2
    assert parts["patch-det"] == parts["det-patch"] == 12 * 2 * 192 * 4150 * 100
    assert parts["det-det"] == 12 * 2 * 192 * 100**2
    assert parts["class"] == 12 * 2 * 192 * (2 * 4250 + 1)
    quadrants = [parts[f"{a}-{b}"] for a in ("patch", "det") for b in ("patch", "det")]
    assert 1 - parts["patch-patch"] / sum(quadrants) == pytest.approx(0.0465, abs=5e-5)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (detr_vit.detr_vit_tiny, 23_119_136),
        (detr_vit.detr_vit_small, 39_309_536),
        (detr_vit.detr_vit_base, 103_540_832),
    ],
)
def test_sizes_of_detr_on_a_vit(make: Callable[[], DETR], count: int) -> None:
    """Oracle: the published parts: DETR-R50 without its ResNet and projection, and DeiT without its head."""
    with torch.device("meta"):
        model = make()
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    width = model.project.in_channels
    deit = {192: 5_717_416, 384: 22_050_664, 768: 86_567_656}[width] - 1000 * (width + 1)
    # 222,400: its first convolution and stage, which are not trained; its norms are no parameters
    neck = 41_524_768 - 222_400 - resnet_trained() - 256 * 2049
    assert count == deit + 256 * (width + 1) + neck


def resnet_trained() -> int:
    """What DETR trains of its ResNet-50: layers 2 to 4 without norms, by the shapes of its bottlenecks."""
    total, before = 0, 256
    for middle, blocks in ((128, 4), (256, 6), (512, 3)):
        for place in range(blocks):
            total += before * middle + 9 * middle**2 + 4 * middle**2 + (4 * middle * before if place == 0 else 0)
            before = 4 * middle
    return total


def test_bad_arguments_are_named() -> None:
    for options, text in (
        ({"queries": 0}, "queries must be at least 1, got 0"),
        ({"classes": 1}, "classes must be at least 2, got 1"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"heads": 5}, "heads must divide width, 12, got 5"),
        ({"learned": (3, 16)}, "learned must be at least 4, got 3"),
        ({"middle": 16}, r"middle must be \(height, width\), got 16"),
        ({"shorter": 0}, "shorter must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=text):
            YOLOS(**TINY | SHOWN | options)
    model = YOLOS(**TINY | SHOWN)
    with pytest.raises(ValueError, match="images must hold a patch of 4 x 4, got 3 x 16"):
        model(torch.zeros(1, 3, 3, 16))
    with pytest.raises(TypeError, match="images must be a floating point"):
        model(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"mask must be \(1, 16, 16\) as the images, got \(1, 8, 8\)"):
        model(torch.zeros(1, 3, 16, 16), torch.zeros(1, 8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="picture must be at least 4, got 2"):
        costs.yolos_costs(model, (2, 16))

    class Other(nn.Module):
        channels, stride = 3, 4

    with pytest.raises(TypeError, match="model must have a ViTBody, got Other"):
        costs.detr_vit_costs(DETR(Other(), **NECK), (16, 16))
