"""SSD's frame and parts. Oracles: loops, torch's own functions, the anchors' tables, laws of convolution."""

import copy
import math
import re
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.detection.anchors import Level, anchors
from course_lib.detection.families.ssd.heads import Heads
from course_lib.detection.families.ssd.l2norm import L2Norm
from course_lib.detection.families.ssd.ssd import SSD, SSD_PYTORCH, Plain, caffe_ssd300, ssd300, ssd512
from course_lib.detection.families.ssd.vgg_body import HALF, INNER, LAST, SAME, VGGBody, convolution
from course_lib.detection.prediction import CAFFE, PLAIN

tables = import_module("course_lib.detection.anchors")  # the package has a function of that name
LEVELS = (Level(5, 8, (2.0,), 2), Level(9, None, (), 4))


class Toy(nn.Module):
    """Two maps, of a half and a quarter of the picture's size; the first may be left out of what comes out."""

    def __init__(self, channels: tuple[int, ...] = (3, 5)) -> None:
        super().__init__()
        self.channels = channels
        self.first, self.second = convolution(3, 3, HALF), convolution(3, 5, HALF)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> list[Tensor]:
        first = F.relu(self.norm(self.first(images)))
        return [first, F.relu(self.second(first))]


RIGHT: dict[str, Any] = {"channels": (3, 5), "boxes": (4, 1), "classes": 3}


def toy(**heads: Any) -> SSD:
    """A small detector of two classes and background, float64, whose biases count."""
    torch.manual_seed(0)
    body = Toy()
    neck = Plain(body.channels, scales=(2.0, None))
    made = SSD(body, neck, Heads(**RIGHT, **heads), LEVELS, (24, 32), PLAIN).double().eval()
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return made


def images(n: int = 1, height: int = 24, width: int = 32, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, height, width, generator=generator, dtype=torch.float64)


def test_heads_order_their_boxes_as_the_anchors() -> None:
    """Oracle: loops over level, row, column and box, and for each of them its slice of the convolution's channels."""
    torch.manual_seed(1)
    heads = Heads((2, 3), (2, 1), classes=3).double()
    maps = [torch.randn(2, 2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 2, 1, dtype=torch.float64)]
    for name, parameter in heads.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    outputs = heads(maps)
    for key, predictors, width in (("offsets", heads.offsets, 4), ("logits", heads.logits, 3)):
        rows = []
        for x, predictor, boxes in zip(maps, predictors, heads.boxes, strict=True):
            assert isinstance(predictor, nn.Conv2d)
            made = F.conv2d(x, predictor.weight, predictor.bias, padding=1)
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    rows += [made[:, k * width : (k + 1) * width, row, column] for k in range(boxes)]
        torch.testing.assert_close(outputs[key], torch.stack(rows, 1), rtol=0, atol=1e-12)
        assert heads([x[:0] for x in maps])[key].shape == (0, *outputs[key].shape[1:])


def test_shared_heads_are_one_pair() -> None:
    """Oracle: the same two convolutions on each map alone."""
    heads = Heads((4, 4, 4), (6, 6, 6), 21, shared=True)
    assert (len(heads.offsets), len(heads.logits)) == (1, 1)
    assert sum(p.numel() for p in heads.parameters()) == (4 * 9 + 1) * 6 * (4 + 21)
    maps = [torch.randn(1, 4, n, n) for n in (3, 2, 1)]
    alone = [Heads((4,), (6,), 21) for _ in maps]
    for one in alone:
        one.load_state_dict(heads.state_dict())
    together = heads(maps)
    for key in together:
        expected = torch.cat([one([x])[key] for one, x in zip(alone, maps, strict=True)], 1)
        torch.testing.assert_close(together[key], expected)


def test_normalised_heads() -> None:
    """Oracle: batch statistics taken by hand. No biases: the normalisation would take them away."""
    heads = Heads((3, 2), (2, 1), 4, normalised=True)
    assert not any(isinstance(m, nn.Conv2d) and m.bias is not None for m in heads.modules())
    maps = [torch.randn(3, 3, 5, 5), torch.randn(3, 2, 4, 4)]
    made = heads(maps)["logits"][:, :50].reshape(3, 25, 8)  # (N, places, box and class) of the first map
    torch.testing.assert_close(made.mean((0, 1)), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(made.std((0, 1), correction=0), torch.ones(8), rtol=0, atol=0.02)


def test_every_map_may_have_its_own_kernel() -> None:
    heads = Heads((3, 3), (2, 2), 4, kernels=(5, 1))
    sizes = [len(predictor.weight[0, 0]) for predictor in heads.offsets]  # type: ignore[index]
    assert sizes == [5, 1]
    assert heads([torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 2, 2)])["offsets"].shape == (1, 2 * 25 + 2 * 4, 4)


def test_l2norm() -> None:
    """Oracle: torch's normalisation; a channel's scale is its own."""
    x, norm = images(2, 3, 4)[:, :3], L2Norm(3, 20.0).double()
    torch.testing.assert_close(norm(x), 20 * F.normalize(x, dim=1))
    lengths = norm(x).square().sum(1).sqrt()
    torch.testing.assert_close(lengths, torch.full_like(lengths, 20))
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(norm(x), F.normalize(x, dim=1) * torch.tensor([1.0, 2.0, 3.0]).double()[:, None, None])
    assert torch.autograd.gradcheck(norm, x.clone().requires_grad_())


def test_l2norm_of_a_dark_place_has_finite_gradients() -> None:
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    norm = L2Norm(4)
    norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert torch.equal(norm(x), torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_l2norm_takes_lengths_in_float32(dtype: torch.dtype) -> None:
    """Oracle: float32. Squares of 300 are beyond float16; a sum of 512 squares has 8 bits in bfloat16."""
    x = 300 * torch.rand(1, 512, 2, 2, generator=torch.Generator().manual_seed(0))
    half = L2Norm(512).to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), L2Norm(512)(x.to(dtype).float()), rtol=2**-8, atol=0)


def test_maps_of_the_bodies() -> None:
    """Oracle: the sizes in the paper's figure 2 and the code; 4 x 4 with padding 1 takes one off."""
    assert [_after(10, step) for step in (SAME, HALF, INNER, LAST)] == [10, 5, 8, 9]
    for make, side, sizes, channels in (
        (ssd300, 300, (38, 19, 10, 5, 3, 1), (512, 1024, 512, 256, 256, 256)),
        (ssd512, 512, (64, 32, 16, 8, 4, 2, 1), (512, 1024, 512, 256, 256, 256, 256)),
    ):
        with torch.device("meta"):
            made = make()
        assert made.picture == (side, side)
        assert made.map_sizes() == [(n, n) for n in sizes]
        assert made.neck.channels == made.heads.channels == channels


def _after(n: int, step: Any) -> int:
    made: Tensor = convolution(1, 1, step)(torch.zeros(1, 1, n, n))
    return made.shape[-1]


@pytest.mark.parametrize(("classes", "count"), [(21, 26_285_486), (81, 34_305_206)])
def test_parameters(classes: int, count: int) -> None:
    """Oracle: counts of the official code, for VOC and for COCO."""
    with torch.device("meta"):
        made = ssd300(classes)
    assert sum(p.numel() for p in made.parameters()) == count
    assert made.classes == classes


def test_anchors_are_the_tables() -> None:
    """Oracle: the tables, which are checked against the official ones, for the maps in MAPS."""
    with torch.device("meta"):
        models = {"SSD300_VOC": caffe_ssd300(), "SSD512_VOC": ssd512()}
        clipped = ssd300()
    for name, made in models.items():
        table = anchors(tables.MAPS[name], getattr(tables, name), made.picture)
        assert torch.equal(made.anchors(), table)
        assert len(table) == {"SSD300_VOC": 8732, "SSD512_VOC": 24_564}[name]
    maps = tables.MAPS["SSD300_VOC"]
    expected = anchors(maps, tables.SSD300_VOC, (300, 300), clip="centre_size", dtype=torch.float64)
    assert torch.equal(clipped.anchors(dtype=torch.float64), expected)
    assert (clipped.normalisation, models["SSD512_VOC"].normalisation) == (SSD_PYTORCH, CAFFE)


def test_each_anchor_knows_its_map() -> None:
    """Oracle: heads that say on every map the map's number, for another picture than their own, too."""
    made = toy()
    for level, (logits, offsets) in enumerate(zip(made.heads.logits, made.heads.offsets, strict=True)):
        for head in (logits, offsets):
            assert isinstance(head, nn.Conv2d)
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, level)  # type: ignore[arg-type]  # it has one
    for size in (made.picture, (40, 56)):
        said = made(torch.rand(1, 3, *size, dtype=next(made.parameters()).dtype))["offsets"][0, :, 0]
        assert torch.equal(made.anchor_levels(size), said.long())
    assert torch.equal(made.anchor_levels(), made.anchor_levels(made.picture))


def test_normalisations_differ_in_the_order_of_colours() -> None:
    """Oracle: the sheet of the codes: both take 123 off red; Caffe has blue first."""
    picture = torch.rand(1, 3, 2, 2)
    torch.testing.assert_close(SSD_PYTORCH(picture), CAFFE(picture).flip(1))
    torch.testing.assert_close(SSD_PYTORCH(picture)[:, 0], 255 * picture[:, 0] - 123)


@pytest.mark.parametrize("size", [(24, 32), (25, 31), (7, 50), (1, 1)])
def test_any_size(size: tuple[int, int]) -> None:
    """Oracle: the maps that really come; one anchor a row, all finite."""
    made = toy()
    outputs = made(images(2, *size))
    maps = made.neck(made.body(images(2, *size)))
    assert made.map_sizes(size) == [x.shape[-2:] for x in maps]
    table = made.anchors(size, dtype=torch.float64)
    assert table.dtype == torch.float64
    assert outputs["logits"].shape == (2, len(table), 3)
    assert outputs["offsets"].shape == (2, len(table), 4)
    assert all(values.isfinite().all() for values in (*outputs.values(), table))


def test_a_larger_picture_has_the_same_boxes_in_pixels() -> None:
    """Oracle: the first places of the own size; more of them follow, none begins outside."""
    made = toy()
    own, larger = made.anchors(), made.anchors((40, 48))
    pixels = torch.tensor([32, 24, 32, 24]), torch.tensor([48, 40, 48, 40])
    torch.testing.assert_close(own[:64] * pixels[0], larger[:64] * pixels[1])  # a row of 16 places with 4 boxes
    assert len(larger) == 20 * 24 * 4 + 10 * 12
    flat = made.anchors((5, 51))[: 3 * 26 * 4].view(3, 26, 4, 4)  # the last cells stand out, but begin inside
    torch.testing.assert_close(flat[0, :, 0, 0], (torch.arange(26) + 0.5) * 2 / 51)
    torch.testing.assert_close(flat[:, 0, 0, 1], (torch.arange(3) + 0.5) * 2 / 5)


def test_a_step_that_leads_outside_is_for_another_size() -> None:
    """SSD300's last step is 300, as there is one place. Oracle: centres of 4 places spread over 512 pixels."""
    with torch.device("meta"):
        made = ssd300()
    assert made.map_sizes((512, 512))[-1] == (4, 4)
    last = made.anchors((512, 512))[-64:].view(4, 4, 4, 4)
    expected = (torch.arange(4) + 0.5) / 4
    assert torch.equal(last[:, 0, 0, 1], expected)
    assert torch.equal(last[0, :, 0, 0], expected)
    first = made.anchors((512, 512))[0]
    torch.testing.assert_close(first, torch.tensor([4, 4, 30, 30]) / 512)
    torch.testing.assert_close(made.anchors((300, 300))[-1, :2], torch.tensor([0.5, 0.5]))


def test_shifted_pictures_have_shifted_predictions() -> None:
    """Law: 4 pixels are one place of the coarser map and two of the finer, away from the border."""
    made, whole = toy(), images(1, 24, 40)
    left, right = made(whole[..., :32]), made(whole[..., 4:36])
    for key, values in left.items():
        fine = [one[:, : 12 * 16 * 4].reshape(12, 16, -1) for one in (values, right[key])]
        torch.testing.assert_close(fine[0][2:-2, 4:-2], fine[1][2:-2, 2:-4])
        coarse = [one[:, 12 * 16 * 4 :].reshape(6, 8, -1) for one in (values, right[key])]
        torch.testing.assert_close(coarse[0][2:-2, 3:-2], coarse[1][2:-2, 2:-3])


def test_a_batch_is_its_pictures() -> None:
    """Oracle: each alone. The mask changes nothing."""
    made, batch = toy(normalised=True), images(3)
    together = made(batch, mask=torch.ones(3, 24, 32, dtype=torch.bool))
    for k in range(3):
        alone = made(batch[k : k + 1])
        for key, values in together.items():
            torch.testing.assert_close(values[k : k + 1], alone[key])


@pytest.mark.parametrize("training", [False, True])
def test_gradients_reach_every_parameter(training: bool) -> None:
    made = toy().train(training)
    outputs = made(images(2))
    loss = sum((values * torch.randn_like(values)).sum() for values in outputs.values())
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # batch normalisation takes the bias before it away again
        assert float(parameter.grad.abs().max()) > 1e-9 or (training and name == "body.first.bias"), name


@pytest.mark.parametrize("size", [(300, 300), (268, 350)])
def test_gradients_reach_every_parameter_of_ssd300(size: tuple[int, int]) -> None:
    """Without numbers: 268 is the smallest side that leaves six maps."""
    with torch.device("meta"):
        made = ssd300()
        outputs = made(torch.zeros(1, 3, *size))
    assert outputs["logits"].shape == (1, len(made.anchors(size)), 21)
    (outputs["logits"].sum() + outputs["offsets"].sum()).backward()
    assert not [name for name, parameter in made.named_parameters() if parameter.grad is None]


def test_autocast() -> None:
    """Oracle: float32, to the 8 bits of bfloat16."""
    made, x = toy().float(), images(2).float()
    expected = made(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = made(x)
    for key, values in mixed.items():
        assert values.dtype == torch.bfloat16
        torch.testing.assert_close(values.float(), expected[key], rtol=0, atol=0.05)
    assert made.anchors().dtype == torch.float32


def test_sizes_are_found_without_running_the_layers() -> None:
    """No hook sees a map, nothing is kept in the state, and copies and other dtypes find the same."""
    made, seen = toy(), []
    for module in made.modules():
        module.register_forward_hook(lambda *_: seen.append(1))
    keys = made.state_dict().keys()
    assert made.map_sizes((40, 44)) == [(20, 22), (10, 11)]
    assert not seen
    assert made.state_dict().keys() == keys
    assert copy.deepcopy(made).half().map_sizes((8, 8)) == [(4, 4), (2, 2)]
    assert all(not p.is_meta for p in made.parameters())


def test_parts_that_do_not_fit_are_named() -> None:
    body, heads = Toy(), Heads((3, 5), (4, 1), 3)
    neck = Plain(body.channels)
    with pytest.raises(ValueError, match=r"heads must be for the neck's \(3, 5\) channels, got \(3, 6\)"):
        SSD(body, neck, Heads((3, 6), (4, 1), 3), LEVELS, (24, 32), PLAIN)
    with pytest.raises(ValueError, match=r"heads must predict \(4, 1\) boxes as the levels have them, got \(4, 2\)"):
        SSD(body, neck, Heads((3, 5), (4, 2), 3), LEVELS, (24, 32), PLAIN)
    lying = Toy((3, 6))
    with pytest.raises(ValueError, match=r"neck must return maps of \(3, 6\) channels, it returned \(3, 5\)"):
        SSD(lying, Plain(lying.channels), Heads((3, 6), (4, 1), 3), LEVELS, (24, 32), PLAIN)
    with pytest.raises(TypeError, match=r"picture must be \(height, width\), got 300"):
        SSD(body, neck, heads, LEVELS, 300, PLAIN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scales must be one for each of 2 maps, got 1"):
        Plain((3, 5), scales=(20.0,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channels": (3,)}, "one entry for every map, got 1, 2 and 1"),
        ({"boxes": (4, 0)}, "boxes must be at least 1, got 0"),
        ({"classes": 1}, "classes must be at least 2, got 1"),
        ({"kernels": (3, 4)}, "kernels must be odd, got 4"),
        ({"kernels": (3, 3, 3)}, "one entry for every map, got 2, 2 and 3"),
        ({"shared": True}, "shared heads need equal channels, boxes and kernels"),
    ],
)
def test_wrong_heads_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Heads(**{**RIGHT, **arguments})


def test_wrong_images_are_named() -> None:
    made = toy()
    for wrong in (torch.zeros(3, 24, 32), torch.zeros(1, 4, 24, 32), torch.zeros(1, 3, 24, 32, 1)):
        came = re.escape(str(tuple(wrong.shape)))
        with pytest.raises(ValueError, match=rf"images must be \(B, 3, H, W\) with H, W >= 1, got {came}"):
            made(wrong)
    with pytest.raises(TypeError, match=r"images must be a floating point torch\.Tensor, got torch\.uint8"):
        made(torch.zeros(1, 3, 24, 32, dtype=torch.uint8))
    with pytest.raises(TypeError, match=r"images must be a floating point torch\.Tensor, got list"):
        made([0.0])
    with torch.device("meta"):
        large = ssd300()
    for size in ((256, 300), (300, 256), (2, 2)):
        words = rf"picture must be large enough for all maps, got {size[0]} x {size[1]} \(\w"
        with pytest.raises(ValueError, match=words):
            large(torch.zeros(1, 3, *size, device="meta"))
    with pytest.raises(ValueError, match=r"maps must have \(3, 5\) channels, got \(3,\)"):
        made.heads([torch.zeros(1, 3, 4, 4)])
    with pytest.raises(ValueError, match=r"x must be \(N, 3, H, W\), got \(1, 4, 2, 2\)"):
        L2Norm(3)(torch.zeros(1, 4, 2, 2))


def test_extras_are_checked() -> None:
    with pytest.raises(ValueError, match="extras must be at least 1, got 0"), torch.device("meta"):
        VGGBody(((0, 512, HALF),))


def test_the_body_sees_as_far_as_dilation_says() -> None:
    """Three taps, 6 places apart, span 13: a 7 x 7 layer behind a pool of stride 2 did so. Oracle: gradients."""
    with torch.device("meta"):
        fc6 = VGGBody().fc6
    layer = nn.Conv2d(1, 1, 3, padding=fc6.padding, dilation=fc6.dilation)  # type: ignore[arg-type]
    x = torch.zeros(1, 1, 21, 21, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0, 0, 10, 10], x)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten().tolist()
    assert rows == [4, 10, 16]
    assert layer(x).shape == x.shape


def test_new_weights_are_xaviers() -> None:
    """Oracle: the variance 2 / (fan in + fan out) and the bound of a uniform distribution."""
    torch.manual_seed(0)
    predictor = Heads((64,), (16,), 2).offsets[0]
    assert isinstance(predictor, nn.Conv2d)
    bound = math.sqrt(6 / (9 * (64 + 64)))
    assert 0.95 * bound < float(predictor.weight.detach().abs().max()) <= bound
    assert float(predictor.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert predictor.bias is not None
    assert not predictor.bias.any()


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """Oracle: the CPU, gradients and anchors too."""
    results = []
    for device in ("cpu", "cuda"):
        made, x = toy(normalised=True).to(device), images(2).to(device).requires_grad_()
        outputs = made(x)
        gradients = torch.autograd.grad(sum(v.square().sum() for v in outputs.values()), [x, *made.parameters()])
        found = [*outputs.values(), *gradients, made.anchors(device=device)]
        assert {one.device.type for one in found} == {device}
        results.append([one.detach().cpu() for one in found])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-9, atol=1e-9)
