"""The small detectors of SSD's family, and how they are measured.

Oracles: layers counted by hooks, sizes and boxes by hand, the official laws of convolutions, targets as predictions.
"""

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import checkpoints
from course_lib.datasets.annotations import Labelled
from course_lib.datasets.scenes import Scenes
from course_lib.detection.boxes import to_normalised, to_pixels
from course_lib.detection.evaluation import detect, evaluate, multiply_adds
from course_lib.detection.families.ssd.tiny import STRIDES, Member, PlainBody, TinyDetector
from course_lib.detection.losses import targets

MEMBERS: tuple[Member, ...] = get_args(Member)
PLAIN: tuple[Member, ...] = ("ssd", "dssd", "fssd", "rssd")
SMALL: dict[str, Any] = {"widths": (4, 6, 8, 8, 10, 10), "width": 8}


def small(member: Member = "ssd", **arguments: Any) -> TinyDetector:
    torch.manual_seed(0)
    return TinyDetector(member, **(SMALL | arguments)).eval()


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("picture", [(64, 64), (33, 97), (120, 160)])
def test_maps_and_anchors_go_by_strides(member: Member, picture: tuple[int, int]) -> None:
    """Oracle: ceil(side / stride) places, whose centres are half a stride from the border and a stride apart."""
    model = small(member)
    assert model.map_sizes(picture) == [tuple(math.ceil(side / stride) for side in picture) for stride in STRIDES]
    out = model(torch.zeros(1, 3, *picture))
    anchors = to_pixels(model.anchors(picture), picture)
    assert out["logits"].shape == (1, len(anchors), 4)
    assert out["offsets"].shape == (1, len(anchors), 4)
    start = 0
    for (height, width), stride, side in zip(model.map_sizes(picture), STRIDES, model.sizes, strict=False):
        rows = anchors[start : start + 4 * height * width].view(height, width, 4, 4)
        start += 4 * height * width
        for place in ((0, 0), (height - 1, width - 1)):
            centre = [(k + 0.5) * stride for k in place[::-1]]
            torch.testing.assert_close(rows[place][:, :2], torch.tensor([centre] * 4), rtol=0, atol=1e-3)
        larger = math.sqrt(side * model.sizes[model.sizes.index(side) + 1])
        sizes = [[side] * 2, [larger] * 2, [side * 2**0.5, side / 2**0.5], [side / 2**0.5, side * 2**0.5]]
        torch.testing.assert_close(rows[0, 0, :, 2:], torch.tensor(sizes), rtol=1e-5, atol=0)
    assert start == len(anchors)


@pytest.mark.parametrize("member", MEMBERS)
def test_operations_are_those_of_the_layers(member: Member) -> None:
    """Oracle: every convolution counted by a hook; the model's mode is as before."""
    model, seen = small(member).train(), 0

    def count(layer: Any, given: tuple[Tensor], out: Tensor) -> None:
        nonlocal seen
        places = (given[0] if isinstance(layer, nn.ConvTranspose2d) else out)[0, 0].numel()
        seen += places * layer.weight.numel()

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    assert multiply_adds(model, (40, 72)) == seen > 0
    assert model.training


def test_members_differ_behind_one_body() -> None:
    """Oracle: names and shapes of the bodies' tensors; in DSOD without its connections the blocks alone differ."""
    shapes = {m: {k: v.shape for k, v in small(m).state_dict().items()} for m in MEMBERS}
    for member in PLAIN:  # FSSD's own pyramid takes the place of the body's last map
        body = {k: v for k, v in shapes[member].items() if k.startswith("body.")}
        assert body == plain_body(3 if member == "fssd" else 4)
    differ = {k for k in shapes["dsod"] if shapes["dsod"][k] != shapes["dsod_plain"].get(k)}
    assert differ
    assert shapes["dsod"].keys() == shapes["dsod_plain"].keys()
    assert all(k.startswith("body.") for k in differ)
    assert small("dsod").map_sizes() == small("ssd").map_sizes()
    assert small("dsod").heads.channels == small("ssd").heads.channels


def plain_body(maps: int) -> dict[str, torch.Size]:
    return {f"body.{k}": v.shape for k, v in PlainBody(SMALL["widths"][: 2 + maps]).state_dict().items()}


def test_products_begin_as_the_maps_they_change() -> None:
    """Oracle: the way across alone. Deep maps of unit variance then change it by a tenth; later they may do more."""
    model = TinyDetector("dssd").train()
    level = model.neck[0].levels[0]  # type: ignore[index]
    shallow, deep = torch.randn(8, 48, 12, 12), torch.randn(8, 32, 6, 6)
    across = F.relu(level.across(shallow))
    change = (level(shallow, deep) - across).square().mean().sqrt() / across.square().mean().sqrt()
    assert 0.08 < change < 0.12


@pytest.mark.parametrize("member", MEMBERS)
def test_pictures_do_not_see_each_other(member: Member) -> None:
    """Law: in eval mode a batch gives what its pictures give; in float64, where the order of sums hardly matters."""
    model = small(member).double()
    pictures = torch.rand(3, 3, 48, 40, dtype=torch.float64)
    whole = model(pictures)
    for name, value in whole.items():
        assert value.dtype == torch.float64
        one_by_one = torch.cat([model(one[None])[name] for one in pictures])
        torch.testing.assert_close(value, one_by_one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("member", MEMBERS)
def test_every_parameter_learns(member: Member) -> None:
    """Oracle: autograd, with every output used; there are bf16 numbers under autocast."""
    model = small(member).train()
    out = model(torch.rand(2, 3, 64, 64))
    sum(value.square().sum() for value in out.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert model.eval()(torch.rand(1, 3, 64, 64))["logits"].isfinite().all()


def test_what_moves_by_a_stride_is_found_a_place_further() -> None:
    """Law: convolutions commute with shifts, far from the border; 32 pixels are 8 places of the first map."""
    model = small().double()
    picture = torch.rand(1, 3, 160, 160, dtype=torch.float64)
    moved = picture.roll((32, 32), (2, 3))
    first = [model(x)["logits"][:, : 40 * 40 * 4].view(40, 40, 4, -1) for x in (picture, moved)]
    torch.testing.assert_close(first[0][8:24, 8:24], first[1][16:32, 16:32], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(first[0][8:24, 8:24], first[1][8:24, 8:24])


@pytest.mark.parametrize("member", MEMBERS)
def test_a_file_makes_the_same_detector(member: Member, tmp_path: Path) -> None:
    """Oracle: the detector that was written: every argument and every number; its header is JSON."""
    model = small(member, names=("cat", "dog"), picture=(40, 56), sizes=(4, 9, 17, 30, 50.5), ratios=(1.6, 3))
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
    checkpoints.save(tmp_path / "x.safetensors", model)
    again = checkpoints.read(tmp_path / "x.safetensors")
    assert isinstance(again, TinyDetector)
    for name in ("member", "names", "picture", "widths", "sizes", "ratios", "width"):
        assert getattr(again, name) == getattr(model, name), name
    picture = torch.rand(1, 3, 40, 56)
    for name, value in model(picture).items():
        assert torch.equal(value, again(picture)[name])
    assert torch.equal(model.anchors(), again.anchors())


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("member", ["yolo", None]),
        ("names", [(), "disc", ("a", "a"), (1, 2), None]),
        ("picture", [(64,), 64, (64, 0), (64.0, 64)]),
        ("widths", [(1, 2, 3), (4, 6, 8, 8, 10, 0), None, (4, 6, 8, 8, 10, 1.5)]),
        ("sizes", [(8, 16), (8, 16, 16, 48, 80), (0, 1, 2, 3, 4), 8, ("a", "b", "c", "d", "e")]),
        ("ratios", [2, (0,), (-1,), ("x",)]),
        ("width", [0, 2.5, "8"]),
    ],
)
def test_bad_arguments_are_named(argument: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises((TypeError, ValueError), match=rf"{argument} .*must be|{argument} must|small must"):
            TinyDetector(**(SMALL | {argument: value}))
    with pytest.raises(ValueError, match="widths of DSOD's maps must be even"):
        small("dsod", widths=(4, 6, 8, 9, 10, 10))


@pytest.mark.gpu
@pytest.mark.parametrize("member", MEMBERS)
def test_on_a_gpu(member: Member) -> None:
    """Oracle: the CPU, in float64; what is found comes back to the CPU."""
    model = small(member).double()
    pictures = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    here = model(model.normalisation(pictures))
    found, _ = detect(model, pictures, score=0.2)
    there = model.cuda()(model.normalisation(pictures.cuda()))
    for name, value in here.items():
        assert there[name].is_cuda
        torch.testing.assert_close(there[name].cpu(), value, rtol=1e-9, atol=1e-9)
    again, _ = detect(model, pictures, score=0.2)
    for one, other in zip(found, again, strict=True):
        assert not other.boxes.is_cuda
        assert torch.equal(one.labels, other.labels)
        torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-6, atol=1e-6)


class Knowing(TinyDetector):
    """Says of every picture what its targets say: sure of each anchor that matches an object."""

    def __init__(self, scenes: list[Labelled], **arguments: Any) -> None:
        super().__init__(**(SMALL | arguments))
        boxes = [to_normalised(one.boxes, one.size) for one in scenes]
        self.wanted = targets(boxes, [one.labels for one in scenes], self.anchors())
        self.seen = 0

    def forward(self, images: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        rows = slice(self.seen, self.seen + len(images))
        self.seen += len(images)
        logits = 9 * nn.functional.one_hot(self.wanted.labels[rows], self.classes).float()
        return {"logits": logits, "offsets": self.wanted.offsets[rows]}


def scenes(count: int, **knobs: Any) -> list[Labelled]:
    found = [Scenes(seed=5, **knobs)[k] for k in range(count)]
    return [Labelled(one.image, one.boxes, one.labels) for one in found]


def test_who_says_the_targets_finds_everything() -> None:
    """Oracle: average precision 1; of each object all its anchors but one are duplicates before suppression."""
    some = scenes(7, object_size=(12, 30), overlap=0.0)
    model = Knowing(some).eval()
    found = evaluate(model, some, model.names, batch=3)
    objects = sum(len(one.labels) for one in some)
    assert (found["AP"], found["AP50"], found["AP75"]) == pytest.approx((1, 1, 1))
    assert found["per_class"] == pytest.approx(dict.fromkeys(model.names, 1.0))
    assert found["duplicates"] == pytest.approx(int((model.wanted.labels > 0).sum()) / objects - 1)
    assert (found["pictures"], found["objects"]) == (7, objects)
    sides = torch.cat([one.boxes for one in some])
    assert float((sides[:, 2:] - sides[:, :2]).prod(1).sqrt().min()) >= 12
    assert math.isnan(evaluate(Knowing(some).eval(), some, model.names, bands=(11.0, 24.0))["AP_small"])
    assert found["AP_large"] == pytest.approx(1)


def test_who_says_nothing_finds_nothing() -> None:
    some = scenes(3)
    model = Knowing(some).eval()
    model.wanted.labels.zero_()
    found = evaluate(model, some, model.names)
    assert (found["AP"], found["AP50"]) == (0, 0)
    assert math.isnan(found["duplicates"])


def test_a_detector_that_still_trains_is_refused() -> None:
    """Oracle: the statistics of its norms are as before."""
    model = small().train()
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    with pytest.raises(ValueError, match=r"model must be in eval mode.*model\.eval\(\)"):
        detect(model, torch.rand(1, 3, 64, 64))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.named_buffers())


def test_boxes_come_back_in_the_pictures_own_pixels() -> None:
    """Oracle: the objects' boxes; the network sees the picture at half its size."""
    some = scenes(2, size=(64, 96), object_size=(14, 30))
    halved = [Labelled(one.image[:, ::2, ::2], one.boxes / 2, one.labels) for one in some]
    model = Knowing(halved, picture=(32, 48)).eval()
    found, sure = detect(model, torch.stack([one.image for one in some]), (32, 48), score=0.5)
    for one, boxes, before in zip(some, found, sure, strict=True):
        assert len(boxes) <= len(one.labels) <= len(before)
        for box in boxes.boxes:
            assert (one.boxes - box).abs().amax(1).min() < 1e-3
