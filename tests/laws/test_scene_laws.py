"""What holds for every generated scene, whatever the knobs. Oracle: the picture's own pixels, counted again here."""

import itertools
import math
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib.datasets import SHAPES, Scene, Scenes


@st.composite
def knobs(draw: st.DrawFn) -> dict[str, Any]:
    height, width = draw(st.integers(12, 72)), draw(st.integers(12, 72))
    smallest = draw(st.floats(4, min(height, width) / 2))
    count = draw(st.integers(0, 5))
    return {
        "seed": draw(st.integers(0, 2**63 - 1)),
        "size": (height, width),
        "classes": tuple(draw(st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, unique=True))),
        "count": (count, count + draw(st.integers(0, 4))),
        "object_size": (smallest, draw(st.floats(math.ceil(smallest), min(height, width)))),
        "overlap": draw(st.sampled_from([0, 0.05, 0.3, 0.7, 1])),
        "hidden": draw(st.sampled_from([0, 0.2, 0.5, 0.9])),
        "clutter": draw(st.sampled_from([0, 0.5, 3])),
        "contrast": draw(st.sampled_from([0, 0.2, 0.5])),
        "textures": draw(st.booleans()),
    }


def pixels_of_boxes(scene: Scene) -> Tensor:
    height, width = scene.image.shape[-2:]
    y, x = torch.arange(height)[:, None], torch.arange(width)
    x0, y0, x1, y1 = (edge[:, None, None] for edge in scene.boxes.unbind(1))
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(knobs=knobs(), index=st.integers(0, 2**63 - 1))
def test_every_scene_keeps_its_word(knobs: dict[str, Any], index: int) -> None:
    scene = Scenes(**knobs)[index]
    height, width = knobs["size"]
    n = len(scene.labels)

    assert scene.image.shape == (3, height, width)
    assert scene.image.dtype == torch.float32
    assert 0 <= scene.image.min() <= scene.image.max() <= 1
    assert torch.equal((255 * scene.image).round() / 255, scene.image)

    assert n <= knobs["count"][1]
    assert scene.boxes.shape == (n, 4)
    assert scene.boxes.dtype == torch.float32
    assert scene.labels.dtype == torch.int64
    assert all(0 <= label < len(knobs["classes"]) for label in scene.labels.tolist())

    masks = scene.masks
    assert masks.shape == (n, height, width)
    assert masks.sum(0).max() <= 1
    for mask, box in zip(masks, scene.boxes.tolist(), strict=True):
        rows, columns = mask.nonzero().T
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert 0 <= box[0] < box[2] <= width
        assert 0 <= box[1] < box[3] <= height
        short = min(box[2] - box[0], box[3] - box[1])
        assert knobs["object_size"][0] <= short <= knobs["object_size"][1]

    for a, b in itertools.combinations(pixels_of_boxes(scene), 2):
        assert (a & b).sum() <= knobs["overlap"] * (a | b).sum() + 1e-4

    semantic = scene.semantic()
    assert semantic.dtype == torch.int64
    assert torch.equal(semantic > 0, masks.any(0))
    for mask, label in zip(masks, scene.labels, strict=True):
        assert (semantic[mask] == label + 1).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(knobs=knobs(), index=st.integers(0, 2**63 - 1))
def test_paint_moves_nothing(knobs: dict[str, Any], index: int) -> None:
    """The same scene with other clutter, contrast and textures: harder to see, but the same truth."""
    scene = Scenes(**knobs)[index]
    other = Scenes(**{**knobs, "clutter": 1.5, "contrast": 0.1, "textures": not knobs["textures"]})[index]
    assert torch.equal(scene.boxes, other.boxes)
    assert torch.equal(scene.labels, other.labels)
    assert torch.equal(scene.instances, other.instances)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(knobs=knobs(), index=st.integers(0, 2**63 - 2))
def test_a_scene_depends_on_seed_and_index_alone(knobs: dict[str, Any], index: int) -> None:
    first, scenes = Scenes(**knobs)[index], Scenes(**knobs)
    following = scenes[index + 1]
    again = scenes[index]
    assert torch.equal(again.image, first.image)
    assert torch.equal(again.boxes, first.boxes)
    assert torch.equal(again.instances, first.instances)
    assert not torch.equal(following.image, first.image)
    assert not torch.equal(Scenes(**{**knobs, "seed": knobs["seed"] ^ 1})[index].image, first.image)
