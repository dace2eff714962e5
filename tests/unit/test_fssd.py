"""FSSD's neck. Oracles: torch's functions called one by one, numbers by hand, laws."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.detection.anchors import FSSD300, FSSD300_PORT, MAPS, anchors
from course_lib.detection.families.ssd.fssd import FSSD512_PORT, STEPS_300, FusionNeck, fssd300, fssd300_pytorch_port
from course_lib.detection.families.ssd.vgg_body import HALF, INNER, SAME

CHANNELS, WIDTHS = (3, 4, 9, 5), (6, 7, 4)


def neck(**options: Any) -> FusionNeck:
    """A small neck, float64, in eval mode, whose statistics and biases count."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"sources": (0, 1, 3), "reduced": 4, "widths": WIDTHS}
    made = FusionNeck(CHANNELS, **{**given, **options}).double().eval()
    for name, tensor in made.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() == 1:
            nn.init.uniform_(tensor, 0.5, 1.5) if "running_var" in name else nn.init.normal_(tensor)
    return made


def maps(sizes: tuple[tuple[int, int], ...] = ((9, 12), (5, 6), (4, 4), (3, 3)), n: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(n, c, *size, generator=generator, dtype=torch.float64)
        for c, size in zip(CHANNELS, sizes, strict=True)
    ]


@pytest.mark.parametrize("caffe", [False, True])
def test_by_hand(caffe: bool) -> None:
    """Oracle: reduce, enlarge, pile up, normalise, and walk, one call a step. The third map is not a source."""
    made = neck(reduce_all=not caffe, affine=not caffe, align_corners=caffe)
    state, given = made.state_dict(), maps()
    parts = []
    for k, place in enumerate((0, 1, 3)):
        x = given[place]
        if caffe and place == 1:
            assert f"reduce.{k}.0.weight" not in state  # it has 4 channels already
        else:
            x = F.conv2d(x, state[f"reduce.{k}.0.weight"], state[f"reduce.{k}.0.bias"]).relu()
        parts.append(x if k == 0 else F.interpolate(x, (9, 12), mode="bilinear", align_corners=caffe))
    x = torch.cat(parts, 1)
    assert ("norm.weight" in state) is not caffe
    mean, variance = state["norm.running_mean"], state["norm.running_var"]
    x = F.batch_norm(x, mean, variance, state.get("norm.weight"), state.get("norm.bias"))
    for k, came in enumerate(made(given)):
        x = F.conv2d(x, state[f"pyramid.{k}.0.weight"], state[f"pyramid.{k}.0.bias"], 1 + (k > 0), 1).relu()
        torch.testing.assert_close(came, x)
    assert made.channels == WIDTHS


def test_concatenation_of_two_maps() -> None:
    """Oracle: the example of chapter 17: 2 x 2 beside a single place, which fills its plane."""
    made = FusionNeck((1, 1), (0, 1), reduced=1, widths=(1,), reduce_all=False, affine=False).eval()
    seen: list[Tensor] = []
    made.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    made([torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[[10.0]]]])])
    assert torch.equal(seen[0], torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[10.0, 10.0], [10.0, 10.0]]]]))


def test_sizes_of_the_pyramid() -> None:
    """Oracle: the chain 38, 19, 10, 5, 3, 1 of the official script."""
    assert STEPS_300 == (SAME, HALF, HALF, HALF, INNER, INNER)
    made = neck(widths=(4,) * 6, steps=STEPS_300)
    assert [x.shape[-1] for x in made(maps(((38, 38), (19, 19), (19, 19), (10, 10))))] == [38, 19, 10, 5, 3, 1]


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (12, 12), (33, 21)])
def test_maps_of_any_size(size: tuple[int, int]) -> None:
    """Without steps of its own the neck halves, which every map survives."""
    coarse = (max(1, size[0] // 2), max(1, size[1] // 2))
    made = neck()(maps((size, coarse, coarse, (1, 1))))
    assert [x.shape[-2:] for x in made] == [(-(-size[0] // 2**k), -(-size[1] // 2**k)) for k in range(3)]


def test_a_deep_place_reaches_the_finest_map() -> None:
    """That is what the fusion is for: one place of the coarsest source changes outputs of all new maps."""
    made = neck(affine=False)
    given = maps()
    x = given[3].requires_grad_()
    for new in made([*given[:3], x]):
        (gradient,) = torch.autograd.grad(new.sum(), x, retain_graph=True)
        assert float(gradient.abs().sum()) > 0


def test_a_batch_is_its_pictures_and_gradients_reach_all() -> None:
    made, given = neck(), maps(n=2)
    together = made(given)
    for k in range(2):
        for new, alone in zip(together, made([x[k : k + 1] for x in given]), strict=True):
            torch.testing.assert_close(new[k : k + 1], alone)
    made.train()
    torch.stack([new.square().sum() for new in made(given)]).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_autocast() -> None:
    """Oracle: float32, to the 8 bits of bfloat16."""
    made, given = neck().float(), [x.float() for x in maps()]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = made(given)
    for new, expected in zip(mixed, made(given), strict=True):
        torch.testing.assert_close(new.float(), expected, rtol=0, atol=0.03 * float(expected.detach().abs().max()))


def test_both_codes() -> None:
    """Oracle: counts of the official codes; boxes by the tables."""
    with torch.device("meta"):
        official, port, coco = fssd300(), fssd300_pytorch_port(), fssd300(81)
    assert sum(p.numel() for p in official.parameters()) == 33_719_932
    assert sum(p.numel() for p in port.parameters()) == 34_132_960
    maps_300 = MAPS["FSSD300"]
    assert torch.equal(official.anchors(), anchors(maps_300, FSSD300, (300, 300)))
    expected = anchors(maps_300, FSSD300_PORT, (300, 300), clip="centre_size")
    assert torch.equal(port.anchors(), expected)
    assert (len(official.anchors()), len(port.anchors())) == (8682, 11_620)
    assert (official.normalisation, official.classes, coco.classes) == (port.normalisation, 21, 81)
    assert [x.shape[-1] for x in official.body(torch.zeros(1, 3, 300, 300, device="meta"))] == [38, 19, 19, 10]
    assert [x.shape[-1] for x in port.body(torch.zeros(1, 3, 300, 300, device="meta"))] == [38, 19, 17, 9]
    assert [(round(level.small, 2), level.step) for level in FSSD512_PORT[:2]] == [(35.84, 8), (76.8, 16)]


def test_a_picture_too_small_is_named() -> None:
    with torch.device("meta"):
        made = fssd300()
        assert made.map_sizes((320, 480))[0] == (40, 60)
        with pytest.raises(ValueError, match="picture must be large enough for all maps, got 200 x 300"):
            made(torch.zeros(1, 3, 200, 300))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sources": (0, 4)}, r"sources must be places among 4 maps, got \(0, 4\)"),
        ({"sources": ()}, r"sources must be places among 4 maps, got \(\)"),
        ({"widths": (6, 0)}, "widths must be at least 1, got 0"),
        ({"steps": (SAME, HALF)}, "steps must be one for each of widths, got 2 and 3"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        neck(**options)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """Oracle: the CPU, gradients too."""
    results = []
    for device in ("cpu", "cuda"):
        made, given = neck().to(device), [x.to(device) for x in maps()]
        new = made(given)
        gradients = torch.autograd.grad(torch.stack([x.sum() for x in new]).sum(), list(made.parameters()))
        assert {one.device.type for one in (*new, *gradients)} == {device}
        results.append([one.detach().cpu() for one in (*new, *gradients)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-9, atol=1e-9)
