"""DETR in small. Oracles: laws of sets and of padding, the parts called one by one, names of what is refused."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.resnet import FrozenBatchNorm, ResNet
from course_lib.detection.families.detr.bodies import OneMap, SeveralMaps, resnet_body
from course_lib.detection.families.detr.detr import DETR, shrunk
from course_lib.detection.families.ssd.tiny import PlainBody
from course_lib.detection.prediction import IMAGENET

SMALL: dict[str, Any] = {"width": 16, "heads": 2, "hidden": 24, "encoder": 1, "decoder": 2}
SMALL |= {"dropout": 0.0, "queries": 5, "classes": 4}


class Patches(nn.Module):
    """A body whose cells see 8 x 8 pixels of their own and nothing else."""

    channels, stride = 6, 8

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 8, 8)

    def forward(self, pictures: Tensor) -> Tensor:
        result: Tensor = self.layer(pictures)
        return result


def detr(body: nn.Module | None = None, seed: int = 0, **options: Any) -> DETR:
    """A float64 DETR in eval mode, every parameter drawn, so that no query and no position is like another."""
    torch.manual_seed(seed)
    model = DETR(Patches() if body is None else body, **(SMALL | options)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def pictures(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-10)


FORMS: dict[str, dict[str, Any]] = {
    "as DETR": {},
    "pre-norm": {"pre_norm": True, "activation": "gelu"},
    "learned positions": {"positions": "learned"},
    "no encoder": {"encoder": 0},
}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_outputs_and_a_batch_is_its_pictures(options: dict[str, Any]) -> None:
    """Oracles: shapes; each picture alone, exactly but for rounding."""
    model, images = detr(**options), pictures(3, 3, 24, 32)
    outputs = model(images)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "logits": (3, 5, 4),
        "boxes": (3, 5, 4),
        "aux_logits": (1, 3, 5, 4),
        "aux_boxes": (1, 3, 5, 4),
    }
    assert ((outputs["boxes"] > 0) & (outputs["boxes"] < 1)).all()
    for k in range(3):
        alone = model(images[k : k + 1])
        close({name: outputs[name][..., k : k + 1, :, :] for name in outputs}, alone)
    close(model(images, torch.zeros(3, 24, 32, dtype=torch.bool)), outputs)
    assert set(detr(decoder=1)(images)) == {"logits", "boxes"}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_padding_is_as_if_it_were_not_there(options: dict[str, Any]) -> None:
    """Law, for a body whose cells see only their own pixels: padded, with anything in it, is as alone.

    A body of 3 x 3 convolutions sees the padding at the border; there it does not hold, as it does not officially.
    """
    model, small = detr(**options), pictures(1, 3, 24, 32)
    images, mask = 9 * pictures(2, 3, 40, 48, seed=2), torch.zeros(2, 40, 48, dtype=torch.bool)
    images[1, :, :24, :32] = small[0]
    mask[1, 24:], mask[1, :, 32:] = True, True
    outputs, alone = model(images, mask), model(small)
    close({name: outputs[name][..., 1:, :, :] for name in outputs}, alone)
    close(
        {name: outputs[name][..., :1, :, :] for name in outputs},
        model(images[:1]),
    )


@pytest.mark.parametrize("pre_norm", [False, True])
def test_queries_have_no_order(pre_norm: bool) -> None:
    """Law: queries shuffled shuffle the answers; nothing else tells one slot from another."""
    model, images = detr(pre_norm=pre_norm), pictures(2, 3, 24, 32)
    expected, order = model(images), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        model.query_positions.copy_(model.query_positions[order])
    close(model(images), {name: output[..., order, :] for name, output in expected.items()})
    assert float((expected["boxes"][:, 0] - expected["boxes"][:, 1]).detach().abs().max()) > 1e-3


def test_the_picture_is_read_by_place() -> None:
    """Law: two cells of a picture exchanged change the answers, though a set of cells without positions would not."""
    model, images = detr(), pictures(1, 3, 24, 32)
    moved = images.clone()
    moved[..., :8, :8], moved[..., 16:, 24:] = images[..., 16:, 24:], images[..., :8, :8]
    assert float((model(moved)["logits"] - model(images)["logits"]).detach().abs().max()) > 1e-3


def test_inspect_shows_what_forward_does() -> None:
    """Oracles: forward's outputs; rows of weights sum to 1 and are 0 at padding; heads on the queries that it shows."""
    model, images = detr(), pictures(2, 3, 40, 32)
    mask = torch.zeros(2, 40, 32, dtype=torch.bool)
    mask[1, 20:] = True
    seen = model.inspect(images, mask)
    close({name: seen[name] for name in ("logits", "boxes", "aux_logits", "aux_boxes")}, model(images, mask))
    assert seen["size"] == (5, 4)
    assert torch.equal(seen["padding"], shrunk(mask, (5, 4)))
    assert seen["memory"].shape == (2, 20, 16)
    torch.testing.assert_close(model.class_head(seen["results"])[-1], seen["logits"])
    torch.testing.assert_close(model.box_head(seen["results"])[-1].sigmoid(), seen["boxes"])
    for weights, rows in ((seen["encoder_weights"], 20), (seen["decoder_weights"], 5)):
        for one in weights:
            assert one.shape == (2, 2, rows, 20)
            torch.testing.assert_close(one.sum(-1), torch.ones_like(one[..., 0]))
            assert not one[1][..., seen["padding"][1].flatten()].any()
    assert [len(seen[f"{part}coder_weights"]) for part in ("en", "de")] == [1, 2]
    assert model.inspect(images)["padding"] is None


def test_masks_shrink_to_the_nearest_pixel() -> None:
    """Oracle: cell i is pixel floor(i H / h), by hand."""
    mask = torch.rand(2, 37, 50, generator=torch.Generator().manual_seed(0)) < 0.5
    for height, width in ((5, 7), (3, 4), (37, 50)):
        rows, columns = torch.arange(height) * 37 // height, torch.arange(width) * 50 // width
        assert torch.equal(shrunk(mask, (height, width)), mask[:, rows][:, :, columns])


def test_every_parameter_learns() -> None:
    """Oracle: a gradient that is not 0 for each, of all layers' outputs; finite where a picture is all padding."""
    model, images = detr(positions="learned"), pictures(2, 3, 24, 32)
    mask = torch.zeros(2, 24, 32, dtype=torch.bool)
    mask[1] = True
    outputs = model(images, mask)
    loss = sum((output * pictures(*output.shape, seed=4)).sum() for output in outputs.values())
    assert isinstance(loss, Tensor)
    for name, slope in zip(
        dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True
    ):
        assert slope.isfinite().all(), name
        # a bias of keys adds the same to all scores of a query, and in the first layer all values are alike
        rows = slope.view(3, -1)[[0, 2]] if name.endswith("qkv.bias") else slope
        assert rows.any(), name


def test_it_is_drawn_as_officially() -> None:
    """Oracle: limits of Glorot's uniform numbers for the transformer's matrices; PyTorch's own for the heads."""
    torch.manual_seed(0)
    model = DETR(Patches(), width=64, heads=2, hidden=96, encoder=1, decoder=1, queries=50)
    for part in (model.encoder, model.decoder):
        for name, parameter in part.named_parameters():
            if parameter.dim() > 1:
                limit = (6 / sum(parameter.shape)) ** 0.5
                assert 0.95 * limit < float(parameter.detach().abs().max()) <= limit, name
    assert 0.95 < float(model.query_positions.detach().std()) < 1.05
    assert float(model.class_head.weight.detach().abs().max()) <= 1 / 8


def test_bodies() -> None:
    """Oracle: the networks called by themselves; a ResNet's frozen parts."""
    x = pictures(1, 3, 64, 96).float()
    plain, resnet = PlainBody((4, 4, 6, 8, 10, 12)).eval(), ResNet((1, 1), 4, norm=FrozenBatchNorm).eval()
    for body, expected in (
        (OneMap(plain, 32), plain(x)[-1]),
        (OneMap(plain, 16, 2), plain(x)[2]),
        (OneMap(resnet, 8, "layer2"), resnet(x)),
        (OneMap(resnet, 4, "layer1"), resnet.maps(x, ["layer1"])[0]),
    ):
        assert torch.equal(body(x), expected)
        assert body.channels == expected.shape[1]
        assert [side // body.stride for side in (64, 96)] == list(expected.shape[2:])
    several = SeveralMaps(resnet, (4, 8), ("layer1", "layer2"))
    for found, expected in zip(several(x), resnet.maps(x, ["layer1", "layer2"]), strict=True):
        assert torch.equal(found, expected)
    for dilated, stride in ((False, 8), (True, 4)):
        body = resnet_body((1, 1), dilated, width=4)
        assert (body.channels, body.stride, tuple(body(x).shape[2:])) == (32, stride, (64 // stride, 96 // stride))
        learned = {name.split(".")[1] for name, p in body.named_parameters() if p.requires_grad}
        assert learned == {"layer2"}
        assert not any("bn" in name for name, _ in body.named_parameters())
    assert DETR(OneMap(plain, 16, 2), **SMALL)(x)["boxes"].shape == (1, 5, 4)


def test_a_padded_picture_sees_its_padding_through_convolutions() -> None:
    """Measured: what the docstring of DETR says. Zeros beyond the border are what a convolution pads with itself, but
    its bias and norms make others of them, which the next layer sees."""
    torch.manual_seed(0)
    model, small = detr(OneMap(PlainBody((4, 4, 6, 8, 10, 12)), 8, 1)), pictures(1, 3, 32, 32)
    mask = torch.ones(1, 64, 64, dtype=torch.bool)
    mask[:, :32, :32] = False
    padded = model(F.pad(small, (0, 32, 0, 32)), mask)
    assert 1e-6 < float((padded["logits"] - model(small)["logits"]).detach().abs().max()) < 1


def test_half_precision_keeps_boxes_fine() -> None:
    """Oracle: float32's outputs; under autocast the outputs are float32."""
    model, images = detr().float(), pictures(2, 3, 24, 32).float()
    mask = torch.zeros(2, 24, 32, dtype=torch.bool)
    mask[1, 12:] = True
    with torch.no_grad():
        expected = model(images, mask)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(images, mask)
        half = model.bfloat16()(images.bfloat16(), mask)
    for name, output in found.items():
        assert (output.dtype, half[name].dtype) == (torch.float32, torch.bfloat16)
        torch.testing.assert_close(output, expected[name], rtol=0, atol=0.1 * float(expected[name].abs().max()))


def test_what_a_detector_says_of_itself() -> None:
    """Oracle: the names that tools ask for."""
    model = DETR(Patches(), **SMALL, picture=(64, 96))
    assert (model.classes, model.background, model.queries, model.stride) == (4, True, 5, 8)
    assert (model.picture, model.shorter, model.longer, model.normalisation) == ((64, 96), 800, 1333, IMAGENET)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"body": nn.Identity()}, TypeError, "body must say the channels of its map, a whole number >= 1, got None"),
    ({"width": 18}, ValueError, "width must be a multiple of 4, .* got 18"),
    ({"heads": 3}, ValueError, "heads must divide width, 16, got 3"),
    ({"queries": 0}, ValueError, "queries must be at least 1, got 0"),
    ({"classes": 1}, ValueError, "classes must be at least 2, got 1"),
    ({"decoder": 0}, ValueError, "depth must be at least 1, got 0"),
    ({"positions": "none"}, ValueError, "positions must be one of 'sine', 'learned', got 'none'"),
    ({"shorter": 600, "longer": 500}, ValueError, "longer must be at least shorter, 600, got 500"),
    ({"dropout": -0.1}, ValueError, "dropout must be a number from 0 to below 1, got -0.1"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), REFUSED)
def test_bad_arguments_are_named(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DETR(**({"body": Patches()} | SMALL | wrong))


def test_bad_input_is_named() -> None:
    model, images = DETR(Patches(), **SMALL), torch.zeros(2, 3, 16, 16)
    with pytest.raises(TypeError, match=r"images must be a floating point torch\.Tensor, got torch\.uint8"):
        model(images.byte())
    with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\) with H, W >= 1, got \(3, 16, 16\)"):
        model(images[0])
    with pytest.raises(TypeError, match=r"mask must be a bool torch\.Tensor, True for padding, got torch\.float32"):
        model(images, torch.zeros(2, 16, 16))
    with pytest.raises(ValueError, match=r"mask must be \(2, 16, 16\) as the images, got \(2, 16, 15\)"):
        model(images, torch.zeros(2, 16, 15, dtype=torch.bool))
    with pytest.raises(ValueError, match="layer must be a place or name in the network's channels"):
        OneMap(PlainBody((4, 4, 6, 8, 10, 12)), 8, "layer1")
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        OneMap(PlainBody((4, 4, 6, 8, 10, 12)), 0)
    large = DETR(Patches(), **SMALL, positions="learned")
    with pytest.raises(ValueError, match="mask must be at most 50 x 50, the learned table, got 51 x 1"):
        large(torch.zeros(1, 3, 408, 8))


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    """Oracle: the CPU, with padding, outputs and gradients."""
    images, mask = pictures(2, 3, 24, 32), torch.zeros(2, 24, 32, dtype=torch.bool)
    mask[1, 12:] = True
    results = []
    for device in ("cpu", "cuda"):
        model = detr().to(device)
        outputs = model(images.to(device), mask.to(device))
        slopes = torch.autograd.grad(outputs["boxes"].sum() + outputs["logits"].square().sum(), [model.query_positions])
        results.append([*(output.detach().cpu() for output in outputs.values()), slopes[0].cpu()])
    for here, there in zip(*results, strict=True):
        torch.testing.assert_close(there, here, rtol=0, atol=1e-9)
