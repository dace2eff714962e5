"""At which size a detector says that it wants pictures. Oracles: the messages, and each class's own attributes."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

from course_lib.detection.checks import check_shown
from course_lib.detection.families.detr.deformable import DeformableDETR
from course_lib.detection.families.detr.detr import DETR
from course_lib.detection.families.vidt.body import RAMBody
from course_lib.detection.families.vidt.vidt import ViDT
from course_lib.detection.families.yolos.yolos import YOLOS


class Body(nn.Module):
    """One map of three channels, whose stride is told in both ways."""

    channels: Any = 3
    stride = 8
    strides = (8,)

    def forward(self, images: Tensor) -> Tensor:
        """Return every eighth pixel."""
        return images[..., ::8, ::8]


def detr(**shown: Any) -> DETR:
    return DETR(Body(), width=8, heads=2, hidden=8, encoder=1, decoder=1, queries=2, **shown)


def deformable(**shown: Any) -> DeformableDETR:
    body = Body()
    body.channels = (3,)
    sizes: dict[str, Any] = {"width": 8, "heads": 2, "hidden": 8, "encoder": 1, "decoder": 1, "queries": 2, "groups": 2}
    return DeformableDETR(body, 1, **sizes, **shown)


def vidt(**shown: Any) -> ViDT:
    body = RAMBody(8, (1, 1), (1, 1), 2, dets=2, positions=8, cross_stages=(1,), extra=8)
    return ViDT(body, width=8, layers=1, heads=2, hidden=8, groups=2, **shown)


def yolos(**shown: Any) -> YOLOS:
    return YOLOS(width=8, depth=1, heads=2, queries=2, learned=(32, 32), **shown)


DETECTORS: list[Callable[..., Any]] = [detr, deformable, vidt, yolos]
PAIR = r"picture must be \(height, width\), whole numbers of at least 1, or None, got "
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"picture": "xy"}, ValueError, PAIR + "'xy'"),
    ({"picture": 64}, ValueError, PAIR + "64"),
    ({"picture": (64,)}, ValueError, PAIR + r"\(64,\)"),
    ({"picture": (64, 0)}, ValueError, PAIR + r"\(64, 0\)"),
    ({"picture": (6.5, 64)}, ValueError, PAIR + r"\(6.5, 64\)"),
    ({"picture": (True, 64)}, ValueError, PAIR + r"\(True, 64\)"),
    ({"shorter": 0}, ValueError, "shorter must be at least 1, got 0"),
    ({"shorter": 64, "longer": 63}, ValueError, "longer must be at least shorter, 64, got 63"),
    ({"shorter": 64, "longer": None}, TypeError, "longer must be a whole number, got None"),
]


@pytest.mark.parametrize(("shown", "error", "message"), REFUSED)
@pytest.mark.parametrize("make", DETECTORS)
def test_a_wrong_size_is_refused_by_name(
    make: Callable[..., Any], shown: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Oracle: the message, the same in every detector."""
    with pytest.raises(error, match=message):
        make(**shown)


@pytest.mark.parametrize("make", DETECTORS)
def test_a_size_is_kept_under_its_names(make: Callable[..., Any]) -> None:
    """Oracle: the arguments; lists become tuples."""
    made = make(picture=[48, 64], shorter=32, longer=32)
    assert (made.picture, made.shorter, made.longer) == ((48, 64), 32, 32)


def test_no_size_is_the_papers() -> None:
    """Oracle: Carion et al. 2020, appendix A.4: sides from 800 to at most 1333."""
    assert check_shown(None, 800, 1333) == (None, 800, 1333)
    assert (detr().picture, detr().shorter, detr().longer) == (None, 800, 1333)
