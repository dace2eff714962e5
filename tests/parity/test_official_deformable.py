"""Deformable DETR under its official names gives the official outputs. Oracle: what the authors' code computed."""

from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from course_lib import official
from course_lib.blocks.deformable_attention import DeformableAttention, deformable_attention
from course_lib.blocks.positions import sine
from course_lib.detection.families.detr.deformable import DeformableDETR
from course_lib.detection.families.detr.deformable_transformer import cell_references
from course_lib.plain.deformable import deformable_attention_grid_sample
from tests.parity import fill

COUNTS = {
    "deformable_detr_single": (34_066_593, 33_844_193),
    "deformable_detr_plain": (40_069_665, 39_847_265),
    "deformable_detr_refine": (40_849_660, 40_627_260),
    "deformable_detr_two": (41_181_529, 40_959_129),
}
"""All parameters, and those that are trained."""
ALIASES = {"single": 40, "plain": 40, "refine": 36, "two": 56}
LOST = {
    "transformer.encoder.layers.3.self_attn.value_proj.bias": "encoder.layers.3.attention.values.bias",
    "transformer.decoder.layers.5.norm2.weight": "decoder.layers.5.norm1.weight",
    "transformer.decoder.layers.2.self_attn.in_proj_bias": "decoder.layers.2.self_attention.qkv.bias",
    "transformer.pos_trans_norm.weight": "first.places_norm.weight",
}
"""Official names, and ours."""
NOISE = {"sums": 3e-7, "logits": 5e-6, "boxes": 2e-7}
"""Of the official code: its float32 against its float64. Ten times that is agreement."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(fill.HERE / "golden" / "deformable_detr.safetensors", "pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # it is no mapping


def weights(name: str) -> dict[str, Tensor]:
    """The drawn weights; a new attention's ring, which no rule draws, for the offsets' biases."""
    manifest = fill.manifest(name)
    levels = manifest["constructor"]["num_feature_levels"]
    ring = DeformableAttention(levels=levels).offsets.bias.detach()
    return fill.weights(manifest) | dict.fromkeys(manifest["left_as_is"], ring)


def near(found: Tensor, stored: Tensor, noise: float) -> bool:
    return found.shape == stored.shape and float((found - stored).detach().abs().max()) <= 10 * noise


@pytest.mark.parametrize("form", [deformable_attention, deformable_attention_grid_sample])
def test_sums_of_samples(golden: dict[str, Tensor], form: Any) -> None:
    value, shapes = golden["core.value"], [(int(h), int(w)) for h, w in golden["core.shapes"]]
    found = form(value, shapes, golden["core.locations"], golden["core.weights"])
    assert near(found, golden["core.out"], NOISE["sums"])


def test_the_module(golden: dict[str, Tensor]) -> None:
    """Around points and around boxes, with padding; and the ring that it begins with."""
    attention = DeformableAttention(64)
    assert torch.equal(attention.offsets.bias, golden["module.ring"])
    ours = {"sampling_offsets": "offsets", "attention_weights": "weights", "value_proj": "values", "output_proj": "out"}
    own = attention.state_dict()
    names = {f"{theirs}.{last}": f"{mine}.{last}" for theirs, mine in ours.items() for last in ("weight", "bias")}
    table = [(theirs, tuple(own[mine].shape), "float32") for theirs, mine in names.items()]
    drawn = fill.weights({"tensors": table, "fill": {"left_as_is": [r"sampling_offsets\.bias$"]}})
    attention.load_state_dict(own | {names[theirs]: values for theirs, values in drawn.items()})
    shapes = [(int(h), int(w)) for h, w in golden["core.shapes"]]
    source, padding = golden["module.src"], golden["module.mask"]
    assert padding.any()
    for places in "24":
        found = attention(golden["module.query"], golden[f"module.ref{places}"], source, shapes, padding)
        assert near(found, golden[f"module.out{places}"], NOISE["sums"])


def test_where_cells_look_first_and_their_positions(golden: dict[str, Tensor]) -> None:
    shapes = [(int(h), int(w)) for h, w in golden["core.shapes"]]
    assert torch.equal(cell_references(shapes, golden["encref.valid_ratios"]), golden["encref.points"])
    found = sine(golden["sine.mask"], 256, centred=True)
    assert near(found[:, ::8], golden["sine.every_8th"], NOISE["sums"])


@pytest.mark.parametrize("name", COUNTS)
def test_outputs_are_the_official_ones(name: str, golden: dict[str, Tensor]) -> None:
    """For two stages no output is stored: there the outputs are finite, and not all alike."""
    state, manifest = weights(name), fill.manifest(name)
    for key, expected in manifest["fill_check"].items():
        values = state[key].double()
        assert [float(values.sum()), float(values.abs().sum())] == pytest.approx(expected, abs=1e-4)
    model = official.load(name, {"model": state, "epoch": 49})
    assert isinstance(model, DeformableDETR)
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad or every) for every in (True, False)]
    assert tuple(counts) == COUNTS[name] == (manifest["params_total"], manifest["params_trainable"])
    picture = torch.randn(3, 128, 160, generator=torch.Generator().manual_seed(7))[None]
    with torch.no_grad():
        seen = model.inspect(picture)
    kind = name.rpartition("_")[2]
    if kind == "two":
        assert (seen["proposal_logits"].shape, seen["proposal_boxes"].shape) == ((1, 426, 91), (1, 426, 4))
        for output in ("logits", "boxes", "aux_logits", "aux_boxes", "proposal_logits", "proposal_boxes"):
            assert seen[output].isfinite().all()
            assert 0.05 < seen[output].std() < 5
        return
    found = {
        "logits_every_10th": (seen["logits"][:, ::10], NOISE["logits"]),
        "boxes": (seen["boxes"], NOISE["boxes"]),
        "aux_boxes_every_5th": (seen["aux_boxes"][:, :, ::5], NOISE["boxes"]),
        "init_reference": (seen["references"][0], NOISE["boxes"]),
    }
    if kind != "single":
        found["memory_every_4th_cell_8th_channel"] = seen["memory"].source[:, ::4, ::8], NOISE["logits"]
    if kind == "refine":  # of the first layer's boxes, and the last's, which no layer looks around
        found["inter_references"] = torch.stack([seen["references"][1], seen["boxes"]]), NOISE["boxes"]
    assert {f"{kind}.one.{part}" for part in found} == {part for part in golden if part.startswith(f"{kind}.one.")}
    for part, (output, noise) in found.items():
        assert near(output, golden[f"{kind}.one.{part}"], noise), part


def test_names_of_one_tensor_must_agree() -> None:
    """Oracle: the manifests' aliases; each of them changed or lost is refused by its name."""
    for name in COUNTS:
        aliases = fill.manifest(name)["aliases_of_earlier_name"]
        assert len(aliases) == ALIASES[name.rpartition("_")[2]]
        rows = fill.rows(fill.manifest(name))
        state = {key: torch.zeros(1) for key, _, _ in rows}
        fold = official.adapter(name).fold
        assert len(fold(state)) == len(state) - len(aliases)
        for later, earlier in list(aliases.items())[::9]:
            second = later if later not in fold(state) else earlier
            with pytest.raises(official.Misfit, match=f"Deformable DETR's weights: {second} and .* but differ$"):
                fold(state | {second: torch.ones(1)})
            with pytest.raises(official.Misfit, match=f"Deformable DETR's weights: {second} is missing"):
                fold({key: value for key, value in state.items() if key != second})


def test_files_tell_which_they_are() -> None:
    """Oracle: the manifests' names and shapes fit one of the four each; a tensor lost or one more, and none fits."""
    assert official.recognise({"model": fill.shapes("deformable_detr_refine")}) == "deformable_detr_refine"
    chosen = official.adapter("deformable_detr_two")
    with torch.device("meta"):
        models = {name: official.adapter(name).build() for name in COUNTS}

    def fit(state: dict[str, Tensor], name: str = "deformable_detr_two") -> None:
        folded = official.adapter(name).fold(state)
        official.fit(models[name], {chosen.rename(key): value for key, value in folded.items()}, name)

    shapes = {name: fill.shapes(name) for name in COUNTS}
    for name, state in shapes.items():
        fit(state, name)
        for other in COUNTS.keys() - {name}:
            with pytest.raises(official.Misfit):
                fit(state, other)
    state = shapes["deformable_detr_two"]
    for lost, ours in LOST.items():
        with pytest.raises(official.Misfit, match=f"1 missing: {ours}$"):
            fit({key: value for key, value in state.items() if key != lost})
    for more in ("transformer.decoder.layers.0.cross_attn.sampling_offsets.scale", "query_embed.weight"):
        with pytest.raises(official.Misfit, match=f"1 unexpected: {chosen.rename(more)}$"):
            fit(state | {more: torch.empty(1, device="meta")})
