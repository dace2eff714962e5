"""LIIF under the official names gives the official outputs. Oracle: what the authors' code computed (goldens)."""

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from course_lib import official
from course_lib.plain import liif as plain
from course_lib.super_resolution.any_scale import Span
from course_lib.super_resolution.liif import LIIF, neighbours
from tests.parity import fill

MANIFEST = fill.manifest("liif_edsr")
NOISE = MANIFEST["golden"]["f32_vs_f64"]


def golden(name: str = "liif_edsr") -> dict[str, Tensor]:
    with safe_open(fill.HERE / "golden" / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)


def places(height: int, width: int) -> tuple[Tensor, Tensor]:
    ys, xs = (plain.centre(torch.arange(n), n) for n in (height, width))
    at = torch.stack(torch.meshgrid(ys, xs, indexing="ij"), dim=-1).flatten(0, 1)
    return at, torch.tensor([2 / height, 2 / width]).expand_as(at)


@pytest.fixture(scope="module")
def model() -> LIIF:
    found = official.load("liif_edsr", fill.weights(MANIFEST))
    assert isinstance(found, LIIF)
    return found


def test_outputs_are_the_official_ones(model: LIIF) -> None:
    """Tolerance: ten times what float32 and float64 differ by in the official code."""
    expected, lr = golden(), fill.picture((1, 3, 10, 12), seed=7)
    with torch.no_grad():
        features = model.features(lr)
        noise = 10 * NOISE["f32_vs_f64_feat_maxabs"]
        torch.testing.assert_close(features, expected["feat"], rtol=0, atol=noise)
        for scale in ("2", "3.7"):
            rgb = expected[f"rgb_x{scale}"]
            noise = 10 * NOISE[f"f32_vs_f64_rgb_x{scale}_maxabs"]
            sr = model(lr, scale=float(scale))
            torch.testing.assert_close(2 * sr[0].permute(1, 2, 0) - 1, rgb, rtol=0, atol=noise)
            at, cells = places(*rgb.shape[:2])
            asked = model.query(features, at[None], cells[None])[0].reshape(rgb.shape)
            torch.testing.assert_close(2 * asked - 1, rgb, rtol=0, atol=noise)


@pytest.mark.parametrize(("unfold", "cell", "ensemble"), list(itertools.product((True, False), repeat=3)))
def test_the_switches_are_the_official_ones(unfold: bool, cell: bool, ensemble: bool) -> None:
    """Oracle: the official code with its three switches, each combination with weights of its own shape."""
    manifest: dict[str, Any] = copy.deepcopy(MANIFEST)
    for entry in manifest["entries"]:
        if entry[0] == "imnet.layers.0.weight":
            entry[1] = [256, (576 if unfold else 64) + (4 if cell else 2)]
    adapter = official.adapter("liif_edsr")
    state = {adapter.rename(key): value for key, value in fill.weights(manifest).items()}
    ablation = LIIF(local_ensemble=ensemble, feature_unfolding=unfold, cell_decoding=cell)
    ablation.load_state_dict(state)
    tag = f"le{ensemble:d}_fu{unfold:d}_cd{cell:d}"
    with safe_open(fill.HERE / "golden" / "liif_edsr_ablations.safetensors", "pt") as file, torch.no_grad():
        count, inputs = json.loads(file.metadata()["param_count_and_in_dim"])[tag]
        noise = json.loads(file.metadata()["f32_vs_f64"])[f"{tag}_x2"]
        rgb = file.get_tensor(f"{tag}_x2")
        assert sum(p.numel() for p in ablation.parameters()) + 24 == count  # 24 are never used
        assert ablation.mlp[0].weight.shape[1] == inputs
        sr = ablation(fill.picture((1, 3, 6, 8), seed=7), scale=2)
    torch.testing.assert_close(2 * sr[0].permute(1, 2, 0) - 1, rgb, rtol=0, atol=10 * noise)


@pytest.mark.parametrize("scale", ["3", "3.7"])
def test_the_four_codes_are_the_official_ones(scale: str) -> None:
    """Oracle: coordinates inside the official code; x3 puts places exactly on codes, where its 1e-6 decides."""
    expected = golden()
    h, w = 10, 12
    height, width = round(h * float(scale)), round(w * float(scale))
    at, _ = places(height, width)
    down, right = (neighbours(*Span.whole(n, m).coordinates(), n) for n, m in ((h, height), (w, width)))
    for k, side in enumerate(plain.SIDES):
        row, column = (plain.nearest_code(at[:, i], n, side[i]) for i, n in enumerate((h, w)))
        centres = torch.stack([plain.centre(row, h), plain.centre(column, w)], dim=-1)
        seen = expected[f"x{scale}_shift{k}_rel_coord"]
        torch.testing.assert_close((at - centres) * torch.tensor([h, w]), seen, rtol=0, atol=1e-5)
        if scale == "3":
            torch.testing.assert_close(centres, expected[f"x3_shift{k}_q_coord"], rtol=0, atol=1e-6)
        exact = (down.place[k // 2][:, None].expand(height, width), right.place[k % 2].expand(height, width))
        torch.testing.assert_close(torch.stack(exact, -1).flatten(0, 1).float(), seen, rtol=0, atol=1e-5)


def test_the_four_predictions_are_the_official_ones(model: LIIF) -> None:
    """Oracle: what the official code says before it blends, for the plain form and its decoder."""
    expected = golden()
    at, cells = places(37, 44)
    codes = plain.unfold(expected["feat"][0])
    with torch.no_grad():
        for k, side in enumerate(plain.SIDES):
            said, _ = plain.predict(codes, model.mlp, at, cells, side)
            atol = 10 * NOISE["f32_vs_f64_rgb_x3.7_maxabs"]
            torch.testing.assert_close(said, expected[f"x3.7_shift{k}_pred"], rtol=0, atol=atol)


def test_a_released_file_is_loaded_strictly(model: LIIF, tmp_path: Path) -> None:
    """Oracle: the manifest's counts, for a file with the wrapper and the dead tensors of a released one."""
    state = fill.weights(MANIFEST)
    dead = {name: torch.zeros(shape) for name, shape, _ in fill.rows(MANIFEST) if "_mean" in name}
    assert sum(value.numel() for value in dead.values()) == 24
    spec = {"name": "liif", "args": MANIFEST["spec_exactly_as_in_yaml"]["args"], "sd": {**dead, **state}}
    optimizer = {"name": "adam", "args": {"lr": 1e-4}, "sd": {"state": {}}}
    path = tmp_path / "edsr-baseline-liif.pth"
    torch.save({"model": spec, "optimizer": optimizer, "epoch": 1000}, path)
    loaded = official.load("liif_edsr", path)
    assert not loaded.training
    assert sum(p.numel() for p in loaded.parameters()) == 1_567_323 - 24 == MANIFEST["n_params_trainable"]
    own = model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())
    for wrong in ("imnet.layers.9.bias", "encoder.tail.0.0.weight", "trunk.x"):
        with pytest.raises(official.Misfit, match=f"1 unexpected: {wrong}"):
            official.load("liif_edsr", {**state, wrong: torch.zeros(1)})
    with pytest.raises(official.Misfit, match=r"1 missing: trunk\.last\.bias"):
        official.load("liif_edsr", {name: value for name, value in state.items() if name != "encoder.body.16.bias"})


def test_rdn_loads_strictly() -> None:
    """Oracle: the manifest's count, also printed in the paper's table as 22.3 M."""
    manifest = fill.manifest("liif_rdn")
    model = official.load("liif_rdn", fill.weights(manifest))
    assert isinstance(model, LIIF)
    assert sum(p.numel() for p in model.parameters()) == manifest["n_params_total"] == 22_320_835
    with torch.no_grad():
        sr = model(fill.picture((3, 6, 5), seed=1), scale=2.5)
    assert sr.shape == (3, 15, 12)
    assert sr.isfinite().all()
