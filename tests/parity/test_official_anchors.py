"""Anchors, IoU and offsets equal the official code's. Oracle: tables that ssd.pytorch and Caffe's layers computed.

golden/anchors.npz holds the tables whole (they compress well): priors of ssd.pytorch clipped and unclipped, for VOC and
COCO, cxcywh; and of the Caffe scripts of DSOD, FSSD and DSSD, xyxy. Beside them an IoU table and coded boxes.
"""

from functools import cache
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import Tensor

from course_lib.detection.anchors import MAPS, anchors
from course_lib.detection.boxes import iou, to_cxcywh, to_xyxy
from course_lib.detection.coding import decode, encode
from course_lib.plain.detection import anchors_loop
from tests.parity import fill

tables = import_module("course_lib.detection.anchors")  # the package has a function of that name


@cache
def golden(name: str) -> Tensor:
    with np.load(fill.HERE / "golden" / "anchors.npz") as kept:
        return torch.from_numpy(kept[name])


def made(name: str, side: int, **options: object) -> Tensor:
    return anchors(MAPS[name], getattr(tables, name), (side, side), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "official", "clip"),
    [
        ("SSD300_VOC", "priors_voc_unclipped_cxcywh", False),
        ("SSD300_VOC", "priors_voc_clipped_cxcywh", "centre_size"),
        ("SSD300_COCO", "priors_coco_unclipped_cxcywh", False),
    ],
)
def test_tables_of_the_pytorch_code(name: str, official: str, clip: object) -> None:
    """Bit for bit: both compute in float64 and round once."""
    assert torch.equal(made(name, 300, clip=clip), golden(official))


@pytest.mark.parametrize(
    ("name", "side", "official"),
    [("DSOD300", 300, "dsod300"), ("FSSD300", 300, "fssd300"), ("DSSD321_OFFICIAL", 321, "dssd321")],
)
def test_tables_of_the_caffe_scripts(name: str, side: int, official: str) -> None:
    """Caffe keeps corners in float32, so the tolerance is relative where DSSD's boxes lie far outside the picture."""
    ours, theirs = to_xyxy(made(name, side, dtype=torch.float64)), golden(f"{official}.priors_xyxy").double()
    assert ours.shape == theirs.shape
    assert float(((ours - theirs).abs() / theirs.abs().clamp(min=1)).max()) < 1e-7
    inside = theirs.abs() < 4
    assert float((made(name, side).to(torch.float64) - to_cxcywh(theirs))[inside].abs().max()) < 1e-6


def test_the_loop_makes_the_same_table() -> None:
    """The plain form against the official table."""
    loop = anchors_loop(MAPS["SSD300_VOC"], tables.SSD300_VOC, (300, 300))
    assert float((loop - golden("priors_voc_unclipped_cxcywh")).abs().max()) < 1e-7


def test_dssd_official_and_corrected_differ_in_centres_alone() -> None:
    """The released table has the sizes of ours, and its centres outside the picture from the third map on."""
    theirs, ours = to_cxcywh(golden("dssd321.priors_xyxy").double()), made("DSSD321", 321, dtype=torch.float64)
    torch.testing.assert_close(ours[:, 2:], theirs[:, 2:], rtol=0, atol=2e-5)
    assert bool(((ours[:, :2] > 0) & (ours[:, :2] < 1)).all())
    shallow = 8 * (40 * 40 + 20 * 20)
    assert float(theirs[shallow:, :2].min()) == pytest.approx(10.5 * 32 / 321, abs=1e-6)  # 336 pixels of 321
    inside = ((theirs[:, :2] >= 0) & (theirs[:, :2] <= 1)).all(-1)
    assert int(inside.sum()) == 8 * (38 * 38 + 18 * 18)  # two rows and columns of the first maps are outside too
    assert round(100 * float(inside.double().mean())) == 83


def test_iou_of_the_pytorch_code() -> None:
    """Bit for bit: the same operations in float32."""
    assert torch.equal(iou(golden("jaccard.a"), golden("jaccard.b")), golden("jaccard.iou"))


def test_offsets_of_the_pytorch_code() -> None:
    """Offsets are up to 112, so that the tolerance is relative; boxes are in about [0, 1]."""
    priors, corners = golden("enc.priors"), golden("enc.gt_xyxy")
    torch.testing.assert_close(encode(corners, priors), golden("enc.encoded"), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(decode(golden("enc.encoded"), priors), golden("enc.decoded"), rtol=0, atol=1e-6)
    torch.testing.assert_close(decode(golden("dec.loc"), priors), golden("dec.decoded_xyxy"), rtol=0, atol=1e-6)
