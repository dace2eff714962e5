"""Detectors of both lines are asked, measured and counted alike.

Oracles: their parts called one after the other, sizes and boxes by hand, outputs set by hand, and the multiply-adds
that were counted in the official implementations.
"""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_lib.blocks import deformable_sampling
from course_lib.datasets.annotations import Labelled
from course_lib.detection import detectors, evaluation, finding
from course_lib.detection.boxes import to_cxcywh, to_normalised
from course_lib.detection.coco_names import BY_ID, NAMES, UNUSED
from course_lib.detection.families.detr.tiny import TinySetDetector
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.prediction import IMAGENET, PLAIN, pad, postprocess
from course_lib.detection.set_prediction import select
from course_lib.official import adapter

SMALL: dict[str, Any] = {"width": 16, "heads": 2, "feed": 32, "encoder": 1, "decoder": 2, "queries": 5}
SMALL |= {"widths": (4, 6, 8, 8, 10, 10), "body_width": 16, "body_heads": (2,), "depths": (2,)}


def net(member: Any = "detr", **arguments: Any) -> TinySetDetector:
    torch.manual_seed(0)
    return TinySetDetector(member, **(SMALL | arguments)).eval()


class Told(nn.Module):
    """A detector that says what it was told, whatever it sees."""

    picture = None
    shorter, longer = 40, 60
    normalisation = IMAGENET

    def __init__(self, logits: Any, boxes: Any, background: bool = True) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float32))
        self.boxes = torch.tensor(boxes, dtype=torch.float32)
        self.classes, self.background = self.logits.shape[-1], background
        self.seen: list[tuple[int, int]] = []
        self.eval()

    def forward(self, images: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        self.seen.append((images.shape[-2], images.shape[-1]))
        return {"logits": self.logits.expand(len(images), -1, -1), "boxes": self.boxes.expand(len(images), -1, -1)}


# --- what a detector is ---------------------------------------------------------------------------------------------


def test_two_lines() -> None:
    """Oracle: by hand."""
    both = TinyDetector(), net()
    assert [detectors.is_detector(one) for one in both] == [True, True]
    assert [detectors.answers_with_set(one) for one in both] == [False, True]
    assert not detectors.is_detector(nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize(
    ("columns", "background", "first", "last"),
    [
        (91, False, UNUSED, "toothbrush"),
        (92, True, UNUSED, "toothbrush"),
        (80, False, "person", "toothbrush"),
        (21, True, "aeroplane", "tvmonitor"),
        (3, True, "class 1", "class 2"),
        (3, False, "class 1", "class 3"),
    ],
)
def test_names_by_columns(columns: int, background: bool, first: str, last: str) -> None:
    """Oracle: by hand; label k is the name at place k."""
    made = detectors.names(Told(torch.zeros(1, columns).tolist(), [[0.5] * 4], background))
    assert len(made) == columns - background
    assert (made[0], made[-1]) == (first, last)
    assert detectors.names(net(names=("cat", "dog"))) == ("cat", "dog")


def test_names_of_coco() -> None:
    """Oracle: some numbers that every file of COCO has, and its ten gaps besides 0."""
    known = {
        1: "person",
        3: "car",
        17: "cat",
        18: "dog",
        44: "bottle",
        62: "chair",
        72: "tv",
        84: "book",
        90: "toothbrush",
    }
    assert {k: BY_ID[k] for k in known} == known
    assert [k for k, name in enumerate(BY_ID) if name == UNUSED] == [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert len(NAMES) == len(set(NAMES)) == 80
    assert len(BY_ID) == 91


def test_outputs_are_read_as_each_line_does() -> None:
    """Oracle: `postprocess` with the anchors, and `select`."""
    images = torch.rand(2, 3, 40, 56)
    ssd, detr, focal = TinyDetector().eval(), net(), net("deformable")
    said = ssd(images)
    for mine, theirs in zip(
        detectors.read(ssd, said, (40, 56), score=0.1, overlap=0.3),
        postprocess(said, ssd.anchors((40, 56)), score=0.1, overlap=0.3),
        strict=True,
    ):
        assert torch.equal(mine.boxes, theirs.boxes)
    for model in (detr, focal):
        said = model(images)
        for mine, theirs in zip(
            detectors.read(model, said, (40, 56), most=3), select(said, model.background, most=3), strict=True
        ):
            assert torch.equal(mine.scores, theirs.scores)
            assert torch.equal(mine.boxes, theirs.boxes)
            assert len(mine) == 3
    with pytest.raises(ValueError, match=r"settings must be score and most for TinySetDetector.*; got overlap, nms"):
        detectors.read(detr, said, (40, 56), overlap=0.5, nms=False)


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "sides", "wanted"),
    [
        ((480, 640), (800, 1333), (800, 1066)),
        ((640, 480), (800, 1333), (1066, 800)),
        ((1000, 3000), (800, 1333), (444, 1332)),
        ((800, 1066), (800, 1333), (800, 1066)),
        ((500, 500), (800, 1333), (800, 800)),
        ((427, 640), (512, 853), (512, 767)),
        ((1, 5000), (800, 1333), (1, 5000)),
    ],
)
def test_sides_of_photographs(picture: Any, sides: Any, wanted: Any) -> None:
    """Oracle: the official rule by hand: 1333 * 1000 / 3000 = 444.3, and 444 * 3 = 1332."""
    assert finding.fitted(picture, *sides) == wanted


def test_at_which_size_it_looks() -> None:
    """Oracle: by hand; a size of its own, sides, a scale or a size given."""
    made, told = net(), Told([[0.0, 0.0]], [[0.5] * 4])
    assert finding.looks_at(made, (300, 200)) == (64, 64)
    assert finding.looks_at(told, (300, 200)) == (60, 40)
    assert finding.looks_at(told, (300, 200), scale=0.5) == (150, 100)
    assert finding.looks_at(told, (300, 200), size=(7, 9)) == (7, 9)
    with pytest.raises(ValueError, match="scale or size must be None"):
        finding.looks_at(told, (300, 200), 0.5, (7, 9))
    with pytest.raises(ValueError, match="shorter must be"):
        finding.fitted((30, 20), 0, 10)


# --- asking ---------------------------------------------------------------------------------------------------------


def test_pictures_are_padded() -> None:
    """Oracle: by hand: zeros and True below and on the right."""
    a, b = torch.rand(3, 2, 5), torch.rand(3, 4, 3)
    batch, mask = pad([a, b])
    assert batch.shape == (2, 3, 4, 5)
    assert torch.equal(batch[0, :, :2], a)
    assert torch.equal(batch[1, :, :, :3], b)
    assert float(batch[0, :, 2:].abs().sum() + batch[1, :, :, 3:].abs().sum()) == 0
    assert mask.dtype == torch.bool
    assert torch.equal(mask[0], torch.tensor([[False] * 5] * 2 + [[True] * 5] * 2))
    assert torch.equal(mask[1], torch.tensor([[False] * 3 + [True] * 2] * 4))
    for wrong, said in (([], "at least one"), ([a, a[None]], "one dtype"), ([a, b.double()], "one dtype")):
        with pytest.raises(ValueError, match=said):
            pad(wrong)


@pytest.mark.parametrize("member", ["detr", "deformable", "yolos", "vidt_no_neck"])
def test_found_in_pixels(member: Any) -> None:
    """Oracle: normalisation, network and `select` by hand, times width and height."""
    more: dict[str, Any] = {"depths": (1, 1, 1), "body_heads": (1, 2, 2)} if "vidt" in member else {}
    model, pictures = net(member, **more), torch.rand(2, 3, 64, 48)
    with torch.no_grad():
        wanted = select(model(PLAIN(pictures)), model.background)
    for mine, theirs in zip(finding.find(model, pictures), wanted, strict=True):
        torch.testing.assert_close(mine.boxes, theirs.boxes * torch.tensor([48.0, 64.0, 48.0, 64.0]))
        assert torch.equal(mine.labels, theirs.labels)
    with pytest.raises(ValueError, match="eval mode"):
        finding.find(model.train(), pictures)


def test_together_is_one_after_the_other() -> None:
    """Oracle: `find` where all are of one size; else the padded batch and its mask by hand, in own pixels."""
    model, pictures = net(), list(torch.rand(3, 3, 50, 70))
    alone = [finding.find(model, one[None], (64, 64))[0] for one in pictures]
    for mine, theirs in zip(finding.find_together(model, pictures), alone, strict=True):
        torch.testing.assert_close(mine.boxes, theirs.boxes, rtol=1e-4, atol=1e-3)
    several = [torch.rand(3, 40, 72), torch.rand(3, 64, 32)]
    images, mask = pad([PLAIN(one) for one in several])
    with torch.no_grad():
        wanted = select(model(images, mask), True)
    for mine, theirs, one in zip(finding.find_together(model, several, scale=1), wanted, several, strict=True):
        torch.testing.assert_close(mine.boxes, theirs.pixels((one.shape[1], one.shape[2])))
    ssd = TinyDetector().eval()
    assert len(finding.find_together(ssd, several)) == 2
    with pytest.raises(ValueError, match="seen at one size by TinyDetector, got 40 x 72, 64 x 32"):
        finding.find_together(ssd, several, scale=1)


# --- measuring ------------------------------------------------------------------------------------------------------


def sample(boxes: Any, labels: Any, size: tuple[int, int] = (40, 60)) -> Labelled:
    return Labelled(torch.rand(3, *size), torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels))


@pytest.mark.parametrize("background", [True, False])
def test_duplicates_of_a_set(background: bool) -> None:
    """Oracle: by hand: of two objects one is said three times, once of them unsurely, and the other once."""
    boxes = [[0, 0, 20, 20], [30, 10, 50, 30]]
    said = to_cxcywh(
        to_normalised(torch.tensor([boxes[0], boxes[0], boxes[1], boxes[0]], dtype=torch.float32), (40, 60))
    )
    logits = [[3.0, -9, -9], [2.0, -9, -9], [-9, 4.0, -9], [-1.0, -9, -0.5]]
    model = Told([row if background else row[:2] for row in logits], said.tolist(), background)
    found = evaluation.evaluate(model, [sample(boxes, [0, 1])] * 2, ("a", "b"))
    assert found["duplicates"] == 0.5
    assert found["AP50"] == pytest.approx(1)  # the second ones come after all that are right
    assert (found["pictures"], found["objects"]) == (2, 4)


def test_an_unused_name_has_no_score() -> None:
    """Oracle: by hand; a callable says for each size at which the detector looks."""
    model = Told([[-9.0, 5.0, -9.0]], [[0.5, 0.5, 1.0, 1.0]])
    samples = [sample([[0, 0, 60, 40]], [1]), sample([[0, 0, 30, 40]], [1], (40, 30))]
    found = evaluation.evaluate(model, samples, (UNUSED, "thing"), partial(finding.looks_at, model))
    assert found["per_class"] == {"thing": pytest.approx(1)}
    assert model.seen == [(40, 60), (53, 40)]


@pytest.mark.parametrize("member", ["detr", "two_stage", "yolos"])
def test_detect_says_found_and_sure(member: Any) -> None:
    """Oracle: `find`, and of all that is said what has score 0.5 and more."""
    model, pictures = net(member), torch.rand(2, 3, 64, 64)
    found, sure = evaluation.detect(model, pictures, most=4)
    alone = finding.find(model, pictures, most=4)
    every = finding.find(model, pictures, most=1000, score=0.5)
    for mine, theirs in zip([*found, *sure], [*alone, *every], strict=True):
        assert torch.equal(mine.boxes, theirs.boxes)


def test_no_sure_box_is_left_out() -> None:
    """Oracle: by hand: 120 boxes, surer than needed, of which 100 are found and all count before suppression."""
    model = Told([[2.0, -9.0]] * 120, [[0.5, 0.5, 0.2, 0.2]] * 120, background=False)
    found, sure = evaluation.detect(model, torch.rand(1, 3, 40, 60))
    assert (len(found[0]), len(sure[0])) == (100, 120)


# --- costs ----------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """One attention over all pixels, as a detector."""

    picture, normalisation, classes, background = (6, 8), PLAIN, 2, True

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3 * 16)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        parts = self.layer(images.flatten(2).mT).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        read = nn.functional.scaled_dot_product_attention(*parts)
        return {"logits": read[:, 0, :, :2], "boxes": read[:, 1, :, :4]}


def test_attention_is_counted() -> None:
    """Oracle: by hand: the layer, and for n pixels and 16 channels n n 16 twice."""
    model, n = Attention().train(), 6 * 8
    assert evaluation.multiply_adds(model) == n * 3 * 48 + 2 * n * n * 16
    assert model.training
    assert evaluation.multiply_adds(model, (12, 8)) == 2 * n * 3 * 48 + 2 * 4 * n * n * 16


def test_attention_holds_no_matrix() -> None:
    """Oracle: by hand: 3 numbers of each pixel, 48 that are made of them, 16 that are read, 6 of those given back."""
    n = 60 * 40
    held = finding.memory(Attention().eval(), (60, 40))
    assert 4 * n * (3 + 48 + 16) <= held <= 4 * n * (3 + 48 + 16 + 3 + 48) < 4 * n * n


def test_gathers_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: whether few cells are gathered or read by a matrix, the network costs the same."""
    model, costs = net("deformable"), []
    for few in (True, False):
        monkeypatch.setattr(deformable_sampling, "_few", lambda *_, answer=few: answer)
        costs.append(evaluation.multiply_adds(model))
    assert costs[0] == costs[1] > 0


@pytest.mark.parametrize(
    ("name", "picture", "wanted"),
    [
        ("detr_r50", (800, 1200), 91.1),
        ("deformable_detr_plain", (800, 1200), 183.3),
        ("yolos_ti", (512, 800), 22.6),
    ],
)
def test_official_networks_cost_what_was_counted(name: str, picture: Any, wanted: float) -> None:
    """Oracle: the official implementations, counted in the same way (what samples the maps is in neither), 10^9."""
    with torch.device("meta"):
        model: Any = adapter(name).build()
    assert evaluation.multiply_adds(model, picture) / 1e9 == pytest.approx(wanted, abs=0.05)
    with pytest.raises(ValueError, match=r"picture must be \(height, width\) for .*, which has no size of its own"):
        evaluation.multiply_adds(model)


@pytest.mark.parametrize(
    "member", ["detr", "deformable", "refine", "two_stage", "detr_vit", "yolos", "vidt", "vidt_no_neck"]
)
def test_every_member_runs_without_numbers(member: Any) -> None:
    """Law: more pixels cost more and take more memory; the model is as before."""
    more: dict[str, Any] = {"depths": (1, 1, 1), "body_heads": (1, 2, 2)} if "vidt" in member else {}
    model = net(member, **more)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    costs = [evaluation.multiply_adds(model, (side, 64)) for side in (64, 128)]
    held = [finding.memory(model, (side, 64)) for side in (64, 128)]
    assert 0 < costs[0] < costs[1]
    assert 0 < held[0] < held[1]
    assert evaluation.multiply_adds(model) == costs[0]
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert bool(model(torch.rand(1, 3, 64, 64))["logits"].isfinite().all())
