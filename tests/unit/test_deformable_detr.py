"""Deformable DETR. Oracles: the papers' equations called one by one, laws of batches and padding, numbers by hand."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.positions import sine
from course_lib.detection.families.detr.bodies import SeveralMaps
from course_lib.detection.families.detr.deformable import DeformableDETR, deformable_detr_single
from course_lib.detection.families.detr.deformable_transformer import (
    DeformableDecoder,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
    Pyramid,
    moved,
    pyramid,
    valid_part,
)
from course_lib.detection.families.detr.two_stage import TwoStage, base_boxes
from course_lib.detection.families.ssd.tiny import PlainBody
from course_lib.detection.prediction import PLAIN

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "refine": {"refine": True},
    "two": {"refine": True, "two_stage": True},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def body() -> SeveralMaps:
    return SeveralMaps(PlainBody((8, 8, 8, 12, 16)), (4, 8, 16), (0, 1, 2))


def small(kind: str = "refine", seed: int = 0, filled: bool = True, **options: Any) -> DeformableDETR:
    """A small detector in float64 and eval mode; filled: every parameter is drawn, zeros too."""
    torch.manual_seed(seed)
    numbers: dict[str, Any] = {"levels": 3, "width": 16, "heads": 4, "hidden": 24, "encoder": 1, "decoder": 3}
    numbers |= {"points": 2, "queries": 6, "classes": 3, "groups": 4, "picture": (32, 32), "normalisation": PLAIN}
    made = DeformableDETR(body(), **(numbers | KINDS[kind] | options)).double().eval()
    if filled:
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@EVERY_KIND
def test_outputs(kind: str) -> None:
    """Names, shapes and ranges of the contract of all set detectors."""
    model, cells = small(kind), 64 + 16 + 4
    with torch.no_grad():
        outputs = model(images(2, 3, 32, 32))
    expected = {"logits": (2, 6, 3), "boxes": (2, 6, 4), "aux_logits": (2, 2, 6, 3), "aux_boxes": (2, 2, 6, 4)}
    if kind == "two":
        expected |= {"proposal_logits": (2, cells, 3), "proposal_boxes": (2, cells, 4)}
    assert {name: tuple(x.shape) for name, x in outputs.items()} == expected
    for name, x in outputs.items():
        assert x.dtype == torch.float64
        if name.endswith("boxes"):
            assert (x >= 0).all()
            assert (x <= 1).all()
    assert (model.classes, model.background, model.queries, model.stride) == (3, False, 6, 16)
    assert (model.picture, model.normalisation, model.shorter, model.longer) == ((32, 32), PLAIN, 800, 1333)
    assert not hasattr(model, "anchors")  # which would make it a detector with anchors


@EVERY_KIND
def test_one_by_one_and_together(kind: str) -> None:
    """A batch of pictures, a mask of nothing, and each alone. Oracle: each alone."""
    model, batch = small(kind), images(3, 3, 40, 24)
    with torch.no_grad():
        together = model(batch)
        masked = model(batch, torch.zeros(3, 40, 24, dtype=torch.bool))
        alone = [model(batch[k : k + 1]) for k in range(3)]
    for name, x in together.items():
        torch.testing.assert_close(masked[name], x)
        axis = 1 if name.startswith("aux") else 0
        torch.testing.assert_close(torch.cat([one[name] for one in alone], axis), x)


@EVERY_KIND
def test_what_stands_in_the_padding_of_the_maps_is_not_read(kind: str) -> None:
    """Behind the body and the norms, which see the padded picture, padding has no say. Oracle: other numbers there."""
    model = small(kind)
    mask = torch.ones(2, 32, 64, dtype=torch.bool)
    mask[0, :, :32], mask[1, :16, :64] = False, False
    picture = images(2, 3, 32, 64)
    noise = torch.randn(3, 2, 16, 8, 16, dtype=torch.float64)
    places = [torch.nn.functional.interpolate(mask[:, None].double(), (8 >> k, 16 >> k)) for k in range(3)]

    def disturb(level: int) -> Any:
        def hook(_: nn.Module, __: Any, found: Tensor) -> Tensor:
            return found + places[level] * noise[level, :, :, : 8 >> level, : 16 >> level]

        return hook

    with torch.no_grad():
        first = model(picture, mask)
        hooks = [layer.register_forward_hook(disturb(level)) for level, layer in enumerate(model.project)]
        second = model(picture, mask)
        for hook in hooks:
            hook.remove()
        whole = model(picture)
    for name in ("logits", "boxes", "aux_logits", "aux_boxes"):
        torch.testing.assert_close(second[name], first[name])
    assert not torch.allclose(whole["logits"], first["logits"])


def test_gradients_stop_at_the_references() -> None:
    """Zhu et al. 2021, section 4.1: no loss of a layer trains the box heads of layers before, but without refinement
    there is one head for all. Oracle: which gradients are None or 0.
    """
    model = small("refine").train()
    outputs = model(images(1, 3, 32, 32))
    outputs["boxes"].sum().backward()
    reached = [any(p.grad is not None and bool(p.grad.any()) for p in head.parameters()) for head in model.box_heads]
    assert reached == [False, False, True]
    assert model.reference.weight.grad is not None
    assert bool(model.reference.weight.grad.any())  # the first layer looks around it
    assert len(small("plain").box_heads) == len(small("plain").class_heads) == 1


def test_every_parameter_learns() -> None:
    """Oracle: gradients of the outputs all together; there is no parameter that nothing reads."""
    for kind in KINDS:
        model = small(kind).train()
        outputs = model(images(2, 3, 32, 32))
        sum((x.square().mean() for x in outputs.values()), torch.zeros(())).backward()
        silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert silent == []


def test_refinement_is_the_equation() -> None:
    """Layer after layer: look around the box of the one before, move it. Oracle: that, by the layers themselves."""
    model = small("refine")
    seen = model.inspect(images(1, 3, 32, 32))
    memory, valid = seen["memory"], torch.ones(1, 1, 3, 1, dtype=torch.float64)
    positions, x = (part[None] for part in model.slots.chunk(2, dim=1))
    references = model.reference(positions).sigmoid()
    boxes = []
    for k, layer in enumerate(model.decoder.layers):
        assert torch.equal(seen["references"][k], references.detach() if k else references)
        x = layer(x, positions, references[:, :, None] * valid, memory)
        start = torch.cat([references, torch.full_like(references, 0.5)], -1) if k == 0 else references
        boxes.append((model.box_heads[k](x) + start.logit()).sigmoid())
        references = boxes[-1].detach()
    torch.testing.assert_close(torch.stack([*seen["aux_boxes"], seen["boxes"]]), torch.stack(boxes))
    torch.testing.assert_close(seen["logits"], model.class_heads[2](x))


def test_layers_are_the_equations() -> None:
    """Post-norm as released, pre-norm as an option. Oracle: their parts, one by one."""
    torch.manual_seed(0)
    cells = pyramid([images(2, 16, 3, 4), images(2, 16, 2, 2, seed=2)])
    references = torch.rand(2, 16, 2, 2, dtype=torch.float64)
    position = images(2, 16, 16, seed=3)
    x = cells.source
    for pre_norm in (False, True):
        encoder = DeformableEncoderLayer(16, 4, 24, levels=2, points=2, pre_norm=pre_norm).double()
        after, before = (F.layer_norm, lambda y, _: y)[:: -1 if pre_norm else 1]
        y = before(x, (16,))
        y = after(x + encoder.attention(y + position, references, y, cells.shapes), (16,))
        expected = after(y + encoder.feed(before(y, (16,))), (16,))
        torch.testing.assert_close(encoder(x, position, references, cells.shapes), expected)
        decoder = DeformableDecoderLayer(16, 4, 24, levels=2, points=2, pre_norm=pre_norm).double()
        y = before(x, (16,))
        y = after(x + decoder.self_attention(y + position, y + position, y), (16,))
        asked = before(y, (16,)) + position
        y = after(y + decoder.cross_attention(asked, references, cells.source, cells.shapes), (16,))
        expected = after(y + decoder.feed(before(y, (16,))), (16,))
        torch.testing.assert_close(decoder(x, position, references, cells), expected)


def test_maps_and_their_levels() -> None:
    """Levels that the body does not make: of its last map by 3 x 3 at stride 2, then of each other. Oracle: by hand."""
    model = small("plain", levels=5, temperature=20.0)
    picture = images(1, 3, 40, 72)
    layers: Any = model.project
    found = model.body(picture)
    maps = [layer[0](x) for layer, x in zip(layers, found, strict=False)]
    maps.append(F.conv2d(found[-1], layers[3][0].weight, layers[3][0].bias, 2, 1))
    maps = [layer[1](x) for layer, x in zip(layers, maps, strict=False)]
    last = layers[4](maps[3])
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given))
    model(picture)
    cells, positions = seen[0]
    assert cells.shapes == ((10, 18), (5, 9), (3, 5), (2, 3), (1, 2))
    expected = torch.cat([x.flatten(2).mT for x in (*maps, last)], 1)
    torch.testing.assert_close(cells.source, expected)
    nothing = [torch.zeros(1, *shape, dtype=torch.bool) for shape in cells.shapes]
    places = [sine(mask, 16, 20.0, centred=True, dtype=torch.float64).flatten(2).mT for mask in nothing]
    told = torch.cat([place + model.level[k] for k, place in enumerate(places)], 1)
    torch.testing.assert_close(positions, told)


def test_what_is_valid() -> None:
    """Oracle: by hand."""
    mask = torch.zeros(2, 4, 8, dtype=torch.bool)
    mask[1, 3:], mask[1, :, 2:] = True, True
    assert valid_part(mask).tolist() == [[1, 1], [0.25, 0.75]]
    maps = pyramid([torch.zeros(2, 3, 4, 8)], [mask])
    assert (maps.shapes, maps.source.shape) == (((4, 8),), (2, 32, 3))
    assert maps.padding is not None
    assert maps.padding.sum(1).tolist() == [0, 26]
    half = pyramid([torch.zeros(2, 3, 4, 8, dtype=torch.bfloat16)])
    assert (half.valid.dtype, half.padding) == (torch.float32, None)


def test_boxes_that_cells_start_from() -> None:
    """Oracle: by hand: sides 0.05 and 0.1, centres of cells; near the edge of the picture and in padding: none."""
    mask = torch.zeros(1, 8, 60, dtype=torch.bool)
    mask[:, :, 30:] = True
    shapes = ((8, 60), (2, 2))
    valid = torch.tensor([[[0.5, 1.0], [0.5, 1.0]]], dtype=torch.float64)
    padding = torch.cat([mask.flatten(1), torch.tensor([[False, True, False, True]])], 1)
    memory = Pyramid(torch.zeros(1, 484, 4, dtype=torch.float64), shapes, padding, valid)
    boxes = base_boxes(memory).sigmoid()
    first = boxes[0, :480].view(8, 60, 4)
    assert (first[:, 30:] == 1).all()
    assert first[2, 10].tolist() == pytest.approx([10.5 / 30, 2.5 / 8, 0.05, 0.05])
    assert boxes[0, 480].tolist() == pytest.approx([0.5, 0.25, 0.1, 0.1])
    wide = Pyramid(torch.zeros(1, 60, 4).double(), ((1, 60),), None, torch.ones(1, 1, 2).double())
    assert base_boxes(wide).isfinite().all(-1)[0].tolist() == [False] + 58 * [True] + [False]  # 1/120 is below 0.01


def test_the_best_cells_become_queries() -> None:
    """Ranked by class 0 alone. Oracle: sorting; references are their boxes, through which no gradient flows."""
    model = small("two")
    seen = model.inspect(images(2, 3, 32, 32))
    proposals = seen["proposals"]
    for n in range(2):
        best = seen["proposal_logits"][n, :, 0].argsort(descending=True)[:6]
        assert proposals.chosen[n].tolist() == best.tolist()
        torch.testing.assert_close(proposals.references[n], seen["proposal_boxes"][n, best])
    assert torch.equal(seen["references"][0], proposals.references)
    assert not proposals.references.requires_grad
    with pytest.raises(ValueError, match="images must have at least 6 cells, one a query; their maps have 3"):
        model(images(1, 3, 4, 4))
    first = model.first
    assert isinstance(first, TwoStage)
    # cells that propose nothing say the same, whatever they hold
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[:, :, 16:] = True
    padded = model.inspect(images(1, 3, 32, 32), mask)
    silent = padded["memory"].padding[0]
    assert torch.equal(
        padded["proposal_logits"][0, silent],
        first.class_head(first.cells_norm(first.cells(torch.zeros(1, 16, dtype=torch.float64)))).expand(
            int(silent.sum()), 3
        ),
    )
    assert (padded["proposal_boxes"][0, silent] == 1).all()


@EVERY_KIND
def test_a_new_detector(kind: str) -> None:
    """Nothing is likely (0.01 where a feature is 0), boxes stay where references are; sides sigmoid(-2) at first.

    Oracle: the constants; in two stages boxes are the proposals'.
    """
    model = small(kind, filled=False)
    seen = model.inspect(images(1, 3, 32, 32))
    assert {round(float(h.state_dict()["bias"].sigmoid()[0]), 6) for h in model.class_heads} == {0.01}
    references = [*seen["references"]]
    boxes = [*seen["aux_boxes"], seen["boxes"]]
    if kind == "two":
        cells = base_boxes(seen["memory"]).sigmoid()
        torch.testing.assert_close(seen["proposal_boxes"], cells)
        torch.testing.assert_close(boxes[0], references[0])
    else:
        torch.testing.assert_close(boxes[0][..., :2], references[0])
        side = 1 / (1 + math.exp(2))
        torch.testing.assert_close(boxes[0][..., 2:], torch.full((1, 6, 2), side, dtype=torch.float64))
    if kind != "plain":
        torch.testing.assert_close(boxes[2], boxes[0])
        assert all(torch.equal(h.weight, model.class_heads[0].weight) for h in model.class_heads)  # type: ignore[arg-type]
    layer = model.decoder.layers[0]
    assert isinstance(layer, DeformableDecoderLayer)
    assert not layer.cross_attention.offsets.weight.any()
    assert layer.cross_attention.weights.weight.abs().max() == 0


def test_autocast_and_half_precision() -> None:
    """Results have the images' dtype; bf16 is near. Oracle: float32."""
    for kind in KINDS:
        model = small(kind).float()
        picture = images(1, 3, 32, 32).float()
        with torch.autocast("cpu", torch.bfloat16):
            half = model(picture)
        whole = model(picture)
        for x in half.values():
            assert x.dtype == torch.float32
            assert x.isfinite().all()
        if kind != "two":  # where another cell may be chosen
            torch.testing.assert_close(half["boxes"], whole["boxes"], rtol=0, atol=0.1)
        assert {x.dtype for x in model.bfloat16()(picture.bfloat16()).values()} == {torch.bfloat16}


def test_without_numbers() -> None:
    """On the meta device, where costs are counted and checkpoints recognised. Oracle: the shapes."""
    for kind in KINDS:
        model = small(kind).to("meta")
        outputs = model(torch.empty(1, 3, 32, 32, device="meta", dtype=torch.float64))
        assert outputs["boxes"].shape == (1, 6, 4)
    with torch.device("meta"):
        network = deformable_detr_single()
    assert network.stride == 32
    assert len(network.project) == 1


def test_wrong_arguments_are_named() -> None:
    """Oracle: the names."""
    for message, options in (
        ("refine must be True where two_stage is", {"two_stage": True, "refine": False}),
        ("levels must be at least the body's 3 maps, got 2", {"levels": 2}),
        ("width must be a multiple of groups, 5, got 16", {"groups": 5}),
        ("temperature must be positive, got 0", {"temperature": 0}),
        ("queries must be at least 1, got 0", {"queries": 0}),
        ("heads must divide width, 16, got 3", {"heads": 3}),
        ("decoder|depth must be at least 1, got 0", {"decoder": 0}),
    ):
        with pytest.raises(ValueError, match=message):
            small(**options)
    with pytest.raises(TypeError, match="body must say the strides of its maps"):
        DeformableDETR(PlainBody((8, 8, 8)))
    with pytest.raises(ValueError, match="strides must be one for each of the layers"):
        SeveralMaps(PlainBody((8, 8, 8)), (4, 8), (0,))
    with pytest.raises(ValueError, match="layer must be a place or name"):
        SeveralMaps(PlainBody((8, 8, 8)), (4, 8), (0, 1))
    model = small()
    with pytest.raises(ValueError, match=r"mask must be \(1, 32, 32\)"):
        model(images(1, 3, 32, 32), torch.zeros(1, 32, 31, dtype=torch.bool))
    with pytest.raises(ValueError, match="images must be"):
        model(images(1, 1, 32, 32))
    decoder = DeformableDecoder(2, 16, 4, 24, levels=1)
    with pytest.raises(ValueError, match="box_heads must be one for each of 2 layers, got 1"):
        decoder(images(1, 2, 16), images(1, 2, 16), images(1, 2, 2), pyramid([images(1, 16, 2, 2)]), [nn.Linear(16, 4)])


def test_moved_keeps_the_references_dtype() -> None:
    """Oracle: float32 places, though a head speaks bf16."""
    assert moved(torch.zeros(2, 4, dtype=torch.bfloat16), torch.rand(2, 2)).dtype == torch.float32


@pytest.mark.gpu
@EVERY_KIND
def test_on_a_gpu(kind: str) -> None:
    """Oracle: the CPU, in float64, outputs and gradients."""
    model, picture = small(kind).train(), images(2, 3, 32, 40)
    mask = torch.zeros(2, 32, 40, dtype=torch.bool)
    mask[1, :, 30:] = True

    def run(device: str) -> list[Tensor]:
        model.to(device).zero_grad()
        outputs = model(picture.to(device), mask.to(device))
        sum((x.square().mean() for x in outputs.values()), torch.zeros((), device=device)).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        return [x.detach().cpu() for x in (*outputs.values(), *gradients)]

    for one, other in zip(run("cpu"), run("cuda"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
