"""Telling an official checkpoint by its tensors. Oracle: the manifests of the released files."""

from pathlib import Path
from typing import Any

import pytest
import torch

from course_lib import official
from course_lib.official import adapters
from course_lib.official.recognise import _made
from course_lib.super_resolution.espcn import ESPCN
from tests.parity import fill

TWINS = (
    ("deit_tiny", "vit_tiny"),
    ("deit_base", "vit_base_patch16_224"),
    ("detr_r50", "detr_r50_dc5"),
    ("detr_r101", "detr_r101_dc5"),
)
"""Checkpoints with the same tensors, sorted."""


@pytest.mark.parametrize("name", official.names())
def test_every_checkpoint_is_told_from_all_others(name: str) -> None:
    state = fill.shapes(name.removesuffix("_dc5"))  # dilated: the same tensors, and one list of them
    wrapped = {"model": {"sd": {f"module.{key}": value for key, value in state.items()}}}
    if twins := next((group for group in TWINS if name in group), None):
        with pytest.raises(official.Misfit, match=f"these weights fit {' and '.join(twins)}; say which"):
            official.recognise(wrapped)
        name = twins[0]
    else:
        assert official.recognise(state) == official.recognise(wrapped) == name
    changed = next(key for key in state if state[key].dim() == 4 and "mean" not in key)
    with pytest.raises(official.Misfit, match=f"the nearest: {name}: 1 missing: "):
        official.recognise({key: value for key, value in state.items() if key != changed})
    with pytest.raises(official.Misfit, match=f"the nearest: {name}: 1 unexpected: another"):
        official.recognise({**state, "another": torch.zeros(1)})
    with pytest.raises(official.Misfit, match=f"{name}: 1 misshapen: {changed} is \\(1, 1, 1, 9\\)"):
        official.recognise({**state, changed: torch.empty(1, 1, 1, 9, device="meta")})


def test_files(tmp_path: Path) -> None:
    torch.save({"state_dict": ESPCN(3).state_dict()}, tmp_path / "released.pth")
    assert official.recognise(tmp_path / "released.pth") == "espcn_x3"
    with pytest.raises(FileNotFoundError):
        official.recognise(tmp_path / "missing.pth")
    with pytest.raises(official.UnreadableCheckpoint):
        official.recognise({"epoch": 3})


def test_strangers() -> None:
    with pytest.raises(official.Misfit, match=r"no official checkpoint has tensors of these names \(a, b\); known are"):
        official.recognise({"a": torch.zeros(1), "b": torch.zeros(2)})


def test_several_that_fit_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = adapters._ADAPTERS["espcn_x2"]
    monkeypatch.setitem(adapters._ADAPTERS, "espcn_twin", twin)
    state = ESPCN(2).state_dict()
    assert official.candidates(state) == ["espcn_twin", "espcn_x2"]
    with pytest.raises(official.Misfit, match="these weights fit espcn_twin and espcn_x2; say which"):
        official.recognise(state)


def test_the_wrapper_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """What LIIF's files say beside the tensors: the kind of network, and switches that change no tensor."""

    class LIIF(ESPCN):
        local_ensemble = True

    monkeypatch.setitem(adapters._ADAPTERS, "liif_toy", adapters.Adapter(lambda: LIIF(5)))
    _made.cache_clear()

    def wrapped(kind: str, **args: Any) -> dict[str, Any]:
        return {"model": {"name": kind, "args": args, "sd": ESPCN(5).state_dict()}, "epoch": 1}

    assert official.recognise(wrapped("liif", local_ensemble=True)) == "liif_toy"
    assert official.recognise(wrapped("liif")) == "liif_toy"
    with pytest.raises(official.Misfit, match="liif_toy: its wrapper says another local_ensemble"):
        official.recognise(wrapped("liif", local_ensemble=False))
    with pytest.raises(official.Misfit, match="liif_toy: its wrapper says MetaSR"):
        official.recognise(wrapped("metasr"))
    _made.cache_clear()
