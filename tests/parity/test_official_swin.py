"""Swin under the official names gives the official outputs. Oracle: what the authors' code computed."""

from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from course_lib import official
from course_lib.blocks.swin import Swin
from course_lib.blocks.windows import PatchMerging, WindowAttention, partition, relative_index, reverse, shift_mask
from course_lib.official.swin import without_tables
from tests.parity import fill

COUNTS = {
    "swin_tiny": 28_288_354,
    "swin_small": 49_606_258,
    "swin_base": 87_768_224,
    "swin_nano_vidt": 7_299_634,
}
NOISE = 1.7e-6
"""What our logits in float64 differ by from the official ones in float32, of their standard deviation: ten times that
is agreement."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(fill.HERE / "golden" / "swin.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def buffers(manifest: dict[str, Any]) -> dict[str, Tensor]:
    """The tables of a released file, made by its shapes from our own, whose values other tests compare."""
    made = {}
    for name, shape, _ in fill.rows(manifest):
        if name.endswith("relative_position_index"):
            made[name] = relative_index(7)
        elif name.endswith("attn_mask"):
            side = 7 * int(shape[0] ** 0.5)
            made[name] = shift_mask((side, side), 7, 3)
    return made


def test_tables_are_the_official_ones(golden: dict[str, Tensor]) -> None:
    """Masks at 56 and 14, and the indices of windows of 7 and 4, number by number."""
    for side in (14, 56):
        assert torch.equal(shift_mask((side, side), 7, 3), golden[f"attn_mask_{side}"].float())
    for window in (4, 7):
        assert torch.equal(relative_index(window), golden[f"rel_index{window}"].long())
    cut = partition(golden["winpart.in"], 7)
    assert torch.equal(cut, golden["winpart.out"].flatten(1, 2))
    assert torch.equal(reverse(cut, 7, (14, 14)), golden["winpart.in"])


def test_layers_give_the_official_numbers(golden: dict[str, Tensor]) -> None:
    """Window attention with and without mask, with gradients asked for and fused; merging. Weights: the fill rule."""

    def weights(names: dict[str, str], **shapes: list[int]) -> dict[str, Tensor]:
        table = {"tensors": [[name, shape, "float32"] for name, shape in shapes.items()]}
        rule = {"fill": {"scales": {"table$": 0.5}}}
        return {names[name]: value for name, value in fill.weights(table | rule).items()}

    # the letters put the names into the order of the official ones, which the rule counts
    ours = dict(zip("abcd", ("out.bias", "out.weight", "qkv.bias", "qkv.weight"), strict=True))
    ours = {letter: f"attention.{name}" for letter, name in ours.items()}
    attention = WindowAttention(24, 3, 4)
    state = weights(ours | {"e_table": "table"}, a=[24], b=[24, 24], c=[72], d=[72, 24], e_table=[49, 3])
    attention.load_state_dict(state)
    merge = PatchMerging(12)
    names = {"a": "norm.bias", "b.weight": "norm.weight", "c": "reduction.weight"}
    merge.load_state_dict(weights(names, **{"a": [48], "b.weight": [48], "c": [24, 48]}))
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            came = {
                "winattn.out": attention(golden["winattn.in"]),
                "winattn.out_masked": attention(golden["winattn.in"], golden["winattn.mask"].float()),
                "merge.out": merge(golden["merge.in"], (6, 8))[0],
            }
        for name, out in came.items():
            torch.testing.assert_close(out.detach(), golden[name], rtol=0, atol=3e-6, msg=name)


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """Swin-T with the drawn weights, and what it gave on the way."""
    manifest = fill.manifest("swin_tiny")
    state = fill.weights(manifest)
    model = official.load("swin_tiny", state | buffers(manifest))
    assert isinstance(model, Swin)
    kept: dict[str, Any] = {"model": model, "state": state, "manifest": manifest}
    first: Any = model.stages[0]
    model.embedding.register_forward_hook(lambda _, __, out: kept.update({"tiny.patch_embed": out[0]}))
    for place, name in enumerate(("tiny.block0.0", "tiny.block0.1_shifted")):
        first.blocks[place].register_forward_hook(lambda _, __, out, name=name: kept.update({name: out}))
    model.norm.register_forward_hook(lambda _, __, out: kept.update({"tiny.pooled": out.mean(1)}))
    with torch.no_grad():
        kept["tiny.logits"] = model(torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(7)))
    return kept


def test_outputs_are_the_official_ones(made: dict[str, Any], golden: dict[str, Tensor]) -> None:
    """Embedding, a block without and one with shift, pooled tokens, logits."""
    names = [name for name in golden if name.startswith("tiny.")]
    assert len(names) == 5
    for name in names:
        expected, came = golden[name], made[name]
        came = came if came.dim() == 2 else came[:, ::56]
        assert came.shape == expected.shape
        error = float((came - expected).abs().max() / expected.std())
        assert error <= 10 * NOISE, (name, error)


def test_the_fill_rule(made: dict[str, Any]) -> None:
    """Oracle: sums, and sums of absolute values, that the manifest tells of some tensors."""
    for key, expected in made["manifest"]["fill_check"].items():
        values = made["state"][key].double()
        assert [float(values.sum()), float(values.abs().sum())] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_checkpoint_loads_strictly(name: str, count: int) -> None:
    """Oracle: the manifest's tensors and count of parameters; the configuration; no other Swin's file fits."""
    manifest, chosen = fill.manifest(name), official.adapter(name)
    with torch.device("meta"):
        model = chosen.build()
    assert isinstance(model, Swin)
    state = chosen.fold(fill.shapes(name))
    renamed = {chosen.rename(key): value for key, value in state.items()}
    assert len(renamed) == len(state)
    official.fit(model, renamed, name)
    assert model.state_dict().keys() == renamed.keys()
    assert sum(p.numel() for p in model.parameters()) == count == manifest["params_total"]
    for other in COUNTS.keys() - {name}:
        with pytest.raises(official.Misfit):
            official.fit(model, {chosen.rename(k): v for k, v in chosen.fold(fill.shapes(other)).items()}, name)
    there = manifest["constructor"]
    blocks: list[list[Any]] = [list(stage.blocks) for stage in model.stages]  # type: ignore[arg-type, union-attr]
    assert [len(stage) for stage in blocks] == there["depths"]
    assert [stage[0].windows.attention.heads for stage in blocks] == there["num_heads"]
    assert [block.shift for stage in blocks for block in stage] == [0, 3] * (sum(there["depths"]) // 2)
    assert {block.windows.window for stage in blocks for block in stage} == {there["window_size"]}
    assert not any(block.always for stage in blocks for block in stage)
    # which blocks of 224 x 224 are shifted: those that have a mask in the file
    sides = [56 >> place for place in range(4)]
    shifted = [
        f"layers.{s}.blocks.{b}.attn_mask"
        for s in range(4)
        for b in range(len(blocks[s]))
        if blocks[s][b].shift_of((sides[s], sides[s]))
    ]
    assert shifted == [key for key, _, _ in fill.rows(manifest) if key.endswith("attn_mask")]
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}


def test_without_its_classifier() -> None:
    """Oracle: the sheet's count."""
    with torch.device("meta"):
        assert sum(p.numel() for p in official.adapter("swin_nano_vidt").build().parameters()) - 385_000 == 6_914_634


@pytest.mark.parametrize("name", ["swin_small", "swin_base", "swin_nano_vidt"])
def test_the_others_run(name: str) -> None:
    """Drawn cheaply, on a small picture. Oracle: shapes; finite, and not all alike."""
    with torch.device("meta"):
        model = official.adapter(name).build()
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.05, 0.05, generator=generator)
        logits = model(torch.randn(1, 3, 100, 64, generator=generator))
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()
    assert logits.std() > 1e-3


def test_wrong_tables_are_refused_by_name() -> None:
    """Oracle: the names; each table changed in one number, in its shape, or put where none belongs."""
    table = {"b.blocks.1.attn.relative_position_bias_table": torch.zeros(49, 3)}
    index, mask = "b.blocks.1.attn.relative_position_index", "b.blocks.1.attn_mask"
    right = table | {index: relative_index(4), mask: shift_mask((8, 8), 4, 2)}
    assert without_tables(right).keys() == table.keys()
    assert without_tables({key: value.to("meta") for key, value in right.items()}).keys() == table.keys()
    assert without_tables(table).keys() == table.keys()
    lonely = {index: relative_index(4)}
    assert without_tables(lonely).keys() == lonely.keys()
    one = shift_mask((8, 8), 4, 2)
    one[3, 0, 1] = -50
    for name, wrong in {
        index: [relative_index(4).T.contiguous(), relative_index(3), relative_index(4).flatten()],
        mask: [
            one,
            shift_mask((8, 8), 4, 1),
            shift_mask((8, 12), 4, 2),
            shift_mask((4, 4), 4, 2),
            torch.zeros(3),
            torch.full((4, 16, 16), float("-inf")),
            torch.full((4, 16, 16), float("nan")),
        ],
    }.items():
        for tensor in wrong:
            with pytest.raises(official.Misfit, match=f"of a Swin: {name} "):
                without_tables(right | {name: tensor})
    even = {key.replace("blocks.1", "blocks.2"): value for key, value in right.items()}
    with pytest.raises(official.Misfit, match=r"b\.blocks\.2\.attn_mask"):
        without_tables(even)


def test_another_file_is_refused() -> None:
    """Oracle: the names; tensors on the meta device, so that no number is compared."""
    chosen = official.adapter("swin_tiny")
    with torch.device("meta"):
        model = chosen.build()
        another = torch.empty(1)
    state = chosen.fold(fill.shapes("swin_tiny"))

    def fit(state: dict[str, Tensor]) -> None:
        official.fit(model, {chosen.rename(key): value for key, value in state.items()}, "swin_tiny")

    for lost in ("layers.0.blocks.1.attn.relative_position_bias_table", "norm.bias", "layers.2.downsample.norm.bias"):
        with pytest.raises(official.Misfit, match=f"of swin_tiny: 1 missing: {chosen.rename(lost)}$"):
            fit({key: value for key, value in state.items() if key != lost})
    for more in ("layers.3.downsample.norm.bias", "absolute_pos_embed", "layers.0.downsample.expansion.weight"):
        with pytest.raises(official.Misfit, match=f"of swin_tiny: 1 unexpected: {chosen.rename(more)}$"):
            fit(state | {more: another})
