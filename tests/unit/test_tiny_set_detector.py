"""The small detectors that answer with a set, and the bodies they begin with.

Oracles: the classes of paper scale, single pictures, autograd, the classifiers' own tensors, files read back.
"""

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from course_lib import checkpoints
from course_lib.classification import Kind, TinyClassifier, body_tensors, take_body
from course_lib.detection.evaluation import multiply_adds
from course_lib.detection.families.detr.deformable import DeformableDETR
from course_lib.detection.families.detr.detr import DETR
from course_lib.detection.families.detr.tiny import APART, Member, TinySetDetector
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.families.vidt.vidt import ViDT
from course_lib.detection.families.yolos.yolos import YOLOS

MEMBERS: tuple[Member, ...] = get_args(Member)
CLASSES: dict[str, type] = {
    "detr": DETR, "detr_vit": DETR, "yolos": YOLOS, "vidt": ViDT, "vidt_no_neck": ViDT
}  # fmt: skip
SMALL: dict[str, Any] = {
    "queries": 5, "width": 16, "heads": 2, "feed": 16, "encoder": 1, "decoder": 2, "points": 2,
    "widths": (4, 6, 8, 8, 10, 10), "body_width": 16, "body_heads": (2,), "depths": (2,),
}  # fmt: skip
SWIN: dict[str, Any] = {"body_width": 8, "depths": (2, 2, 2), "body_heads": (1, 2, 2), "patch": 4}
BODY: dict[Kind, dict[str, Any]] = {"conv": {}, "vit": {}, "swin": SWIN}
OF_BODY = ("widths", "body_width", "depths", "body_heads")


def kind_of(member: str) -> Kind:
    if member.startswith("vidt"):
        return "swin"
    return "vit" if member in ("detr_vit", "yolos") else "conv"


def small(member: Member, **arguments: Any) -> TinySetDetector:
    torch.manual_seed(0)
    return TinySetDetector(member, **(SMALL | BODY[kind_of(member)] | arguments)).eval()


def classifier(kind: Kind, **arguments: Any) -> TinyClassifier:
    torch.manual_seed(1)
    made = TinyClassifier(kind, **({name: SMALL[name] for name in OF_BODY} | BODY[kind] | arguments))
    for value in made.body.state_dict().values():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
    return made.eval()


@pytest.mark.parametrize("member", MEMBERS)
def test_members_are_the_classes_of_paper_scale(member: Member) -> None:
    """Oracle: the class by hand; outputs by the arguments: queries, classes, layers; sizes other than the trained."""
    model = small(member, names=("cat", "dog"))
    assert type(model.network) is CLASSES.get(member, DeformableDETR)
    background = member not in ("deformable", "refine", "two_stage", "vidt")
    assert (model.background, model.classes) == (background, 2 + background)
    for name in ("background", "classes", "queries", "normalisation", "picture", "stride"):
        assert getattr(model, name) == getattr(model.network, name), name
    for height, width in (model.picture, (72, 40)):
        out = model(torch.rand(2, 3, height, width))
        assert out["logits"].shape == (2, 5, model.classes)
        assert out["boxes"].shape == (2, 5, 4)
        layers = {"yolos": 0, "vidt_no_neck": 0, "vidt": 2}.get(member, 1)
        assert ("aux_boxes" in out) == (layers > 0)
        assert layers == 0 or out["aux_logits"].shape == (layers, 2, 5, model.classes)
        assert ("proposal_boxes" in out) == (member == "two_stage")
    assert multiply_adds(model) > 0


def test_what_a_convolutional_member_reads() -> None:
    """Oracle: strides by name; deeper stages are not made; four levels begin at stride 4, a fifth is made anew."""
    for cell, stages in ((4, 1), (8, 2), (16, 3), (32, 4)):
        model = small("detr", cell=cell)
        assert model.stride == cell
        assert len(model.network.body.network.stages) == stages
        assert model.network.inspect(torch.zeros(1, 3, 64, 64))["size"] == (64 // cell, 64 // cell)
    for levels, strides in ((1, (32,)), (3, (8, 16, 32)), (4, (4, 8, 16, 32)), (5, (4, 8, 16, 32))):
        body = small("deformable", levels=levels).network
        assert body.body.strides == strides
        assert len(body.project) == levels
    assert small("deformable").network.refine is False
    assert small("two_stage").network.refine is True
    assert (small("refine").network.first, small("two_stage").network.first is None) == (None, False)
    assert small("vidt").network.body.cross_stages == {2}


@pytest.mark.parametrize("member", MEMBERS)
def test_pictures_do_not_see_each_other(member: Member) -> None:
    """Law: in eval mode a batch gives what its pictures give, in float64."""
    model = small(member).double()
    pictures = torch.rand(3, 3, 64, 48, dtype=torch.float64)
    with torch.no_grad():
        whole = model(pictures)
        alone = [model(one[None]) for one in pictures]
    for name in ("logits", "boxes"):
        assert whole[name].dtype == torch.float64
        torch.testing.assert_close(whole[name], torch.cat([one[name] for one in alone]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("member", MEMBERS)
def test_every_parameter_learns(member: Member) -> None:
    """Oracle: autograd, with every output used; numbers are finite under autocast too."""
    model = small(member).train()
    out = model(torch.rand(2, 3, 64, 64))
    sum(value.square().sum() for value in out.values()).backward()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert [name for name, p in trained if p.grad is None or not p.grad.isfinite().all()] == []
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert all(value.isfinite().all() for value in model.eval()(torch.rand(1, 3, 64, 64)).values())


@pytest.mark.parametrize("member", MEMBERS)
def test_a_file_makes_the_same_detector(member: Member, tmp_path: Path) -> None:
    """Oracle: the detector that was written: every argument and every number."""
    model = small(member, names=("cat", "dog"), picture=(64, 48), temperature=20.0, cell=8)
    checkpoints.save(tmp_path / "x.safetensors", model)
    again = checkpoints.read(tmp_path / "x.safetensors")
    assert isinstance(again, TinySetDetector)
    for name in SMALL | {"member": 0, "names": 0, "picture": 0, "cell": 0, "temperature": 0}:
        assert getattr(again, name) == getattr(model, name), name
    picture = torch.rand(1, 3, 64, 48)
    with torch.no_grad():
        first, second = model(picture), again(picture)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_temperature_reaches_the_positions() -> None:
    """Oracle: the same weights; another temperature gives other answers, but to YOLOS, whose table is learned."""
    picture = torch.rand(1, 3, 64, 64)
    for member in MEMBERS:
        warm, cold = small(member), small(member, temperature=20.0)
        for parameter in warm.parameters():  # offsets and weights of deformable attention begin as zeros
            parameter.data += 0.05 * torch.randn_like(parameter)
        cold.load_state_dict(warm.state_dict())
        with torch.no_grad():
            same = torch.equal(warm(picture)["logits"], cold(picture)["logits"])
        assert same == (member == "yolos"), member


def test_learned_positions_begin_with_sines() -> None:
    """Oracle: sin and cos by hand for the second row and the third column; the other tokens' are small."""
    names = {"yolos": "network.positions", "detr_vit": "network.body.network.positions"}
    found = {name: small(name, temperature=20.0).state_dict()[key] for name, key in names.items()}  # type: ignore[arg-type]
    found["classifier"] = TinyClassifier("vit", body_width=16, depths=(1,), body_heads=(2,)).body.positions.detach()
    for name, table in found.items():
        row = table[0, (name == "yolos") + 1 * 8 + 2]
        for place, half in ((2, row[:8]), (3, row[8:])):
            angle = 2 * math.pi * place / 8 / 20.0 ** (2 * torch.arange(4) / 8)
            torch.testing.assert_close(half, torch.stack((angle.sin(), angle.cos()), -1).flatten(), rtol=0, atol=1e-5)
    assert found["yolos"][0, 0].abs().max() <= 0.04
    assert found["yolos"][0, -5:].abs().max() <= 0.04


@pytest.mark.parametrize("member", MEMBERS)
def test_a_batch_of_no_pictures_is_refused_by_name(member: Member) -> None:
    """Oracle: the message, the same in every member."""
    with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\) with B >= 1, got \(0, 3, 64, 64\)"):
        small(member)(torch.zeros(0, 3, 64, 64))


def test_tokens_begin_apart() -> None:
    """Oracle: the standard deviation of many numbers; those of paper scale begin with 0.02."""
    bodies = [small(name, queries=400).network.body for name in ("vidt", "vidt_no_neck")]
    for one in [small("yolos", queries=400).network, *bodies]:
        assert float(one.det_tokens.detach().std()) == pytest.approx(APART, rel=0.05)
    assert float(YOLOS(16, 1, 2, queries=400, learned=(64, 64)).det_tokens.detach().std()) < 0.02


@pytest.mark.parametrize("member", ["yolos", "detr_vit"])
def test_a_width_without_sines_is_refused_by_name(member: Member) -> None:
    """Oracle: the message."""
    with pytest.raises(ValueError, match="body_width must be a multiple of 4, as sines of y and x have it, got 18"):
        small(member, body_width=18)
    with pytest.raises(ValueError, match="body_width must be a multiple of 4, as sines of y and x have it, got 18"):
        TinyClassifier("vit", body_width=18, depths=(1,), body_heads=(2,))


@pytest.mark.parametrize("member", [*MEMBERS, "ssd"])
def test_a_detector_begins_with_a_classifiers_body(member: Any) -> None:
    """Oracle: the classifier's tensors, all of them but heads, what nobody reads, and the rest as it was before."""
    detector = TinyDetector(widths=SMALL["widths"], width=8) if member == "ssd" else small(member)
    given = classifier("conv" if member == "ssd" else kind_of(member), cells=member != "yolos")
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    take_body(detector, given)
    theirs, mine = given.body.state_dict(), body_tensors(detector)
    taken = set()
    for name, tensor in mine.items():
        if member == "yolos" and name == "positions":
            assert torch.equal(tensor[:, 1:-5], theirs[name])
            assert torch.equal(tensor[:, -5:], before["network.positions"][:, -5:])
        else:
            assert torch.equal(tensor, theirs[name])
        taken.add(tensor.data_ptr())
    left = {name for name in theirs if name not in mine}
    assert left == {name for name in theirs if member == "detr" and name.startswith("stages.3.")}
    changed = [t for name, t in detector.state_dict().items() if not torch.equal(t, before[name])]
    assert {tensor.data_ptr() for tensor in changed} <= taken
    assert len(changed) >= len(mine) - sum("num_batches" in name for name in mine)


def test_the_body_works_in_the_detector_as_in_the_classifier() -> None:
    """Oracle: the classifier's maps, in each of the three kinds."""
    pictures = torch.rand(2, 3, 64, 64)
    found: dict[str, Tensor] = {}
    for member in ("deformable", "detr_vit", "vidt"):
        detector, given = small(member), classifier(kind_of(member), cells=True)
        take_body(detector, given)
        body = detector.network.body
        with torch.no_grad():
            wanted = given._maps(pictures)
            made = body(pictures)
        maps = {"deformable": made, "detr_vit": [made]}.get(member) or made.maps
        for one, other in zip(wanted, maps, strict=False):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
            found[member] = one
    assert len(found) == 3


@pytest.mark.parametrize(
    ("member", "kind", "arguments"),
    [
        ("detr", "vit", {}),
        ("detr", "conv", {"widths": (4, 6, 8, 12, 10, 10)}),
        ("yolos", "vit", {"depths": (3,)}),
        ("yolos", "vit", {"picture": (72, 64)}),
        ("detr_vit", "vit", {"picture": (72, 64)}),
        ("vidt", "swin", {"depths": (2, 2)  , "body_heads": (1, 2)}),
        ("vidt", "conv", {}),
    ],
)  # fmt: skip
def test_another_body_is_refused_by_name(member: Member, kind: Kind, arguments: Any) -> None:
    """Oracle: the message; nothing of the detector was changed."""
    detector = small(member)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with pytest.raises(ValueError, match=f"classifier must have the body of the detector, a {member}; others are"):
        take_body(detector, classifier(kind, **arguments))
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


@pytest.mark.parametrize("member", ["yolos", "detr_vit"])
def test_positions_of_smaller_pictures_are_refused(member: Member) -> None:
    """Oracle: the message: a larger picture has more patches than the classifier's, and no positions for the others."""
    with pytest.raises(ValueError, match=rf"body of the detector, a {member}; others are: \['positions'\]"):
        take_body(small(member, picture=(96, 64)), classifier("vit"))


@pytest.mark.parametrize("member", ["yolos", "detr_vit"])
def test_positions_of_as_many_patches_in_another_order_are_refused(member: Member) -> None:
    """Oracle: the message: 4 x 16 patches are 8 x 8 in number, but no row of the one is a row of the other."""
    detector = small(member, picture=(32, 128))
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with pytest.raises(ValueError, match=r"classifier must have positions of \(4, 16\) patches, got \(8, 8\)"):
        take_body(detector, classifier("vit"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("member", ["ssd", None]),
        ("names", [(), "disc", ("a", "a"), (1, 2)]),
        ("picture", [(64,), 64, (64, 0)]),
        ("queries", [0, 1.5]),
        ("width", [0, 20, "16"]),
        ("heads", [0, 3]),
        ("feed", [0]),
        ("decoder", [0, 2.5]),
        ("widths", [(1, 2, 3), None, (4, 6, 8, 8, 10, 0)]),
        ("cell", [12, "16"]),
        ("levels", [0]),
        ("depths", [(), 4, (0,)]),
        ("body_heads", [(), (0,), 2]),
    ],
)
def test_bad_arguments_are_named(argument: str, values: list[Any]) -> None:
    """Oracle: the argument's name, before any weights are made."""
    for value in values:
        with pytest.raises((TypeError, ValueError), match=rf"{argument}.* must|must .*{argument}"):
            TinySetDetector(
                **(SMALL | {"member": "deformable" if argument == "levels" else "detr"} | {argument: value})
            )
    with pytest.raises(ValueError, match="depths and body_heads must be one number each"):
        small("yolos", depths=(2, 2))
    with pytest.raises(ValueError, match="depths must be of two stages or more"):
        classifier("swin", depths=(2,), body_heads=(1,))


@pytest.mark.gpu
@pytest.mark.parametrize("member", MEMBERS)
def test_on_a_gpu(member: Member) -> None:
    """Oracle: the CPU, in float64."""
    model = small(member).double()
    pictures = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        here = model(model.normalisation(pictures))
        there = model.cuda()(model.normalisation(pictures.cuda()))
    for name, value in here.items():
        assert there[name].is_cuda
        torch.testing.assert_close(there[name].cpu(), value, rtol=1e-9, atol=1e-9)
