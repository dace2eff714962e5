"""Reading official files safely and loading them strictly. Oracles: files made here, and the words of the errors."""

import argparse
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from course_lib import official
from course_lib.official import adapters
from course_lib.super_resolution.espcn import ESPCN


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return ESPCN(2).state_dict()


def same(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in state)


WRAPPERS: dict[str, Any] = {
    "bare": lambda s: s,
    "model": lambda s: {"model": s, "epoch": 3},
    "state_dict": lambda s: {"state_dict": s, "optimizer": {"lr": 0.1}},
    "spec": lambda s: {"model": {"name": "espcn", "args": {"r": 2}, "sd": s}, "optimizer": {}, "epoch": 1},
    "parallel": lambda s: {f"module.{name}": value for name, value in s.items()},
    "all": lambda s: {"model": {"state_dict": {f"module.{name}": value for name, value in s.items()}}},
    "namespace": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1, names=["a", "b"])},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("legacy", [False, True])
def test_wrappers_are_taken_off(wrapper: str, legacy: bool, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    wrapped = WRAPPERS[wrapper](state)
    path = tmp_path / "released.pth"
    torch.save(wrapped, path, _use_new_zipfile_serialization=not legacy)
    assert same(official.load("espcn_x2", path), state)
    assert same(official.load("espcn_x2", wrapped), state)


def test_a_tensor_called_model_is_no_wrapper() -> None:
    inside = {"model": torch.zeros(2), "sd": torch.ones(1)}
    assert official.unwrap(inside) == inside


def test_the_content_says_the_format_not_the_name(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "weights.pth")
    torch.save(state, tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        assert same(official.load("espcn_x2", str(tmp_path / name)), state)


def test_safetensors_that_begin_like_a_pickle(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """A file's first byte is the lowest of its header's length, which 0x80 may be."""
    for padding in range(0, 256, 8):
        save_file(state, tmp_path / "weights.safetensors", metadata={"note": "x" * padding})
        if (tmp_path / "weights.safetensors").read_bytes()[0] == 0x80:
            break
    else:
        pytest.fail("no padding makes the header that long")
    assert same(official.load("espcn_x2", tmp_path / "weights.safetensors"), state)


def test_every_misfit_is_named_at_once(state: dict[str, torch.Tensor]) -> None:
    wrong = {name: value for name, value in state.items() if name != "conv2.bias"}
    wrong |= {"conv1.weight": torch.zeros(64, 3, 5, 5), "head.weight": torch.zeros(1)}
    before = {name: value.clone() for name, value in wrong.items()}
    with pytest.raises(official.Misfit) as caught:
        official.load("espcn_x2", wrong)
    assert str(caught.value) == (
        "these are not the weights of espcn_x2: 1 missing: conv2.bias; 1 unexpected: head.weight; "
        "1 misshapen: conv1.weight is (64, 3, 5, 5), must be (64, 1, 5, 5)"
    )
    assert all(torch.equal(wrong[name], value) for name, value in before.items())


def test_nothing_is_copied_where_something_does_not_fit(state: dict[str, torch.Tensor]) -> None:
    model = ESPCN(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(official.Misfit):
        official.fit(model, state | {"more": torch.zeros(1)}, "this model")
    assert same(model, before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda v: (100 * v).long(),
            "1 of another kind of number: conv2.weight is torch.int64, must be floating point",
        ),
        (lambda v: v.to(torch.complex64), "conv2.weight is torch.complex64, must be floating point"),
        (lambda v: torch.full_like(v, torch.nan), "1 with NaN: conv2.weight"),
    ],
)
def test_only_numbers_of_the_right_kind(change: Any, words: str, state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(official.Misfit, match=re.escape(words)):
        official.load("espcn_x2", state | {"conv2.weight": change(state["conv2.weight"])})


def test_floats_where_integers_belong_are_refused() -> None:
    model = nn.BatchNorm2d(2)
    state = model.state_dict()
    official.fit(model, state | {"num_batches_tracked": torch.tensor(3, dtype=torch.int32)}, "a norm")
    assert model.num_batches_tracked == 3
    assert model.num_batches_tracked.dtype == torch.int64
    with pytest.raises(official.Misfit, match=r"num_batches_tracked is torch\.float32, must be integers"):
        official.fit(model, state | {"num_batches_tracked": torch.tensor(4.5)}, "a norm")
    with pytest.raises(official.Misfit, match=r"num_batches_tracked is torch\.complex64, must be integers"):
        official.fit(model, state | {"num_batches_tracked": torch.tensor(4j)}, "a norm")


def test_half_precision_is_loaded(state: dict[str, torch.Tensor]) -> None:
    """Oracle: the values, which float32 holds exactly."""
    half = {name: value.half() for name, value in state.items()}
    assert same(official.load("espcn_x2", half), {name: value.float() for name, value in half.items()})


def test_loading_leaves_random_numbers_alone(state: dict[str, torch.Tensor]) -> None:
    """Oracle: torch's generator before and after."""
    before = torch.get_rng_state()
    official.load("espcn_x2", state)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_models_file_is_named_shortly(tmp_path: Path) -> None:
    other = nn.Sequential(*(nn.Linear(2, 2) for _ in range(40)))
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(official.Misfit, match="6 missing: conv1") as caught:
        official.load("espcn_x2", tmp_path / "other.safetensors")
    assert "80 unexpected: 0.bias, 0.weight" in str(caught.value)
    assert "and 76 more" in str(caught.value)
    assert len(str(caught.value)) < 250


def test_the_wrong_scale_is_misshapen(state: dict[str, torch.Tensor]) -> None:
    expected = r"2 misshapen: conv3\.weight is \(4, 32, 3, 3\), must be \(9, 32, 3, 3\), conv3\.bias is \(4,\)"
    with pytest.raises(official.Misfit, match=expected):
        official.load("espcn_x3", state)


class Harmful:
    """A pickle that would make a file where it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    path, target = tmp_path / "released.pth", tmp_path / "made"
    torch.save({"model": Harmful(target)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(official.UnreadableCheckpoint, match=r"refused: .* (posix|nt)\.mkdir") as caught:
        official.load("espcn_x2", path)
    assert str(path) in str(caught.value)
    assert not target.exists()


def test_nothing_stays_allowed_after_reading(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"model": state, "args": argparse.Namespace(a=1)}, tmp_path / "released.pth")
    official.read(tmp_path / "released.pth")
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"is no checkpoint: it begins with b''"),
        (b"<!DOCTYPE html><html>", "download page or a Git LFS pointer"),
        (b"version https://git-lfs.github.com/spec/v1\n", "download page or a Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", r"is no checkpoint: it begins with b'\\x89PNG"),
        (b"PK\x03\x04 not a zip after all", "is damaged"),
        (b"\x80\x02 not a pickle after all", "is damaged"),
        (b"\x20\x00\x00\x00\x00\x00\x00\x00{not json after all, and short}", "is a damaged safetensors file"),
    ],
)
def test_wrong_kinds_of_file(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(official.UnreadableCheckpoint, match=words) as caught:
        official.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["torch", "legacy", "safetensors"])
def test_a_file_cut_short(kind: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "torch")
    content = path.read_bytes()
    for length in (len(content) // 2, len(content) - 40):
        path.write_bytes(content[:length])
        with pytest.raises(official.UnreadableCheckpoint, match="damaged"):
            official.read(path)


def test_a_flipped_bit(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Oracle: the check sums that a file of torch.save holds, and torch.load does not compare."""
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    place = content.index(state["conv2.weight"].numpy().tobytes()) + 1001
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(official.UnreadableCheckpoint, match=r"damaged .*a check sum is wrong"):
        official.read(path)


def test_legacy_files_with_changed_bytes(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Every change of the part that says which storage is whose is read as numbers, or named as damage."""
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    keys = [match.start(1) for match in re.finditer(rb"X.\x00\x00\x00(\d{6,})", whole)]
    assert keys
    for place in keys:
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(official.UnreadableCheckpoint, match="damaged"):
            official.read(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"there is no checkpoint {tmp_path / 'x.pth'}")):
        official.read(tmp_path / "x.pth")
    with pytest.raises(official.UnreadableCheckpoint, match="is a folder"):
        official.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, r"got \{\}"),
        ([1, 2], r"got list \[1, 2\]"),
        ({"model": {}}, r"got \{\}"),
        ({"conv1.weight": 3}, "got 'conv1.weight': int 3"),
        ({1: torch.zeros(1)}, "got 1: Tensor"),
        ({"a": {"b": torch.zeros(1)}}, r"got 'a': a dictionary of 1 entries \('b'\)"),
    ],
)
def test_what_is_no_state_dict(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(official.UnreadableCheckpoint, match=words):
        official.read(tmp_path / "weights.pth")
    if isinstance(content, dict):
        with pytest.raises(official.UnreadableCheckpoint, match=words):
            official.load("espcn_x2", content)


def test_names() -> None:
    assert official.names() == sorted(official.names())
    assert {"espcn_x2", "espcn_x3", "espcn_x4", "espcn_x8"} <= set(official.names())
    with pytest.raises(ValueError, match=r"name must be one of .*espcn_x2.*; got 'espcn_x5'"):
        official.load("espcn_x5", {})


def test_weights_decide_the_device(state: dict[str, torch.Tensor]) -> None:
    """Oracle: the meta device, on which nothing is computed and nothing needs memory."""
    model = official.load("espcn_x2", {name: value.to("meta") for name, value in state.items()})
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert not model.training


def test_an_adapter_renames_passes_over_and_leaves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Oracle: a made-up family whose official names differ from ours; errors speak of the official ones."""

    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 1)
            self.register_buffer("table", torch.arange(3))

    toy = official.Adapter(
        Toy,
        rename=lambda name: name.replace("body.0", "first").replace("body.1", "second"),
        never_used=(r"^dead\.",),
        left_as_initialised=("^table$",),
    )
    monkeypatch.setitem(adapters._ADAPTERS, "toy", toy)
    state = {
        f"body.{i}.{part}": torch.full(shape, float(i))
        for i, rows in enumerate((2, 1))
        for part, shape in (("weight", (rows, 2)), ("bias", (rows,)))
    }
    with caplog.at_level(logging.INFO, "course_lib.official"):
        model = official.load("toy", {**state, "dead.weight": torch.zeros(5)})
    assert "1 tensors that the official code never uses were passed over: ['dead.weight']" in caplog.text
    assert model.state_dict()["second.weight"].tolist() == [[1, 1]]
    assert model.state_dict()["table"].tolist() == [0, 1, 2]
    with pytest.raises(official.Misfit, match=r"1 misshapen: body\.1\.bias is \(4,\)"):
        official.load("toy", {**state, "body.1.bias": torch.zeros(4)})
    with pytest.raises(official.Misfit, match=r"1 unexpected: body\.2\.bias$"):
        official.load("toy", {**state, "body.2.bias": torch.zeros(4)})
    with pytest.raises(official.Misfit, match=r"of toy: body\.0\.bias and first\.bias both become first\.bias$"):
        official.load("toy", {**state, "first.bias": torch.zeros(2)})
