"""ViDT gives the official outputs. Oracle: what the authors' code computed (golden), manifests, published counts.

The input is 96 x 128, so that its maps are 24 x 32, 12 x 16, 6 x 8 and 3 x 4: no map is made of whole windows of 7, and
two are smaller than one, where Swin's classifier would drop the shift.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from course_lib import official
from course_lib.blocks.positions import sine
from course_lib.detection.families.vidt.body import BodyOutput
from course_lib.detection.families.vidt.distillation import token_distances, token_matching
from course_lib.detection.families.vidt.vidt import ViDT
from tests.parity import fill

NOISE = 1.3e-5  # float32 against float64 in the official code
COUNTS = {  # of the sheet of published models: all, and of them never used
    "vidt_nano": (15_728_677, 198_880),
    "vidt_tiny": (37_962_901, 590_272),
    "vidt_small": (60_465_061, 590_272),
    "vidt_base": (99_959_635, 958_720),
    "vidt_wo_neck_nano": (7_997_418, 98_784),
    "vidt_wo_neck_tiny": (29_564_250, 391_104),
    "vidt_wo_neck_small": (52_066_410, 391_104),
    "vidt_wo_neck_base": (91_116_056, 693_504),
}
EVERY = pytest.mark.parametrize("name", COUNTS)


@cache
def golden() -> dict[str, Tensor]:
    return load_file(fill.HERE / "golden" / "vidt_nano.safetensors")


@cache
def weights(name: str) -> dict[str, Tensor]:
    """The drawn weights, once."""
    return fill.weights(fill.manifest(name))


def images(side: tuple[int, int] = (96, 128)) -> Tensor:
    return torch.randn(1, 3, *side, generator=torch.Generator().manual_seed(7))


@cache
def run(name: str) -> tuple[ViDT, BodyOutput, dict[str, Any], list[tuple[Tensor, Tensor]]]:
    """The network, what body and whole gave, and the [DET] tokens behind the blocks of each stage and its merging."""
    model = official.load(name, weights(name))
    assert isinstance(model, ViDT)
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(stage: nn.Module, _: Any, out: tuple[Tensor, Tensor]) -> None:
        merge: Any = stage.merge
        seen.append((out[1], out[1] if merge is None else merge.reduce(out[1].repeat(1, 1, 4))))

    hooks = [stage.register_forward_hook(keep) for stage in model.body.stages]
    with torch.no_grad():
        body = model.body(images())
        for hook in hooks:
            hook.remove()
        return model, body, model(images(), tokens=not model.background), seen


def close(came: Tensor, key: str, noises: float = 10) -> None:
    torch.testing.assert_close(came, golden()[key], rtol=0, atol=noises * NOISE, msg=lambda text: f"{key}: {text}")


@pytest.mark.parametrize(("name", "start"), [("vidt_nano", "vidt"), ("vidt_wo_neck_nano", "vidt_wo_neck")])
def test_outputs_are_the_official_ones(name: str, start: str) -> None:
    outputs = run(name)[2]
    close(outputs["logits"], f"{start}.one.pred_logits")
    close(outputs["boxes"], f"{start}.one.pred_boxes", noises=1)


def test_every_layer_is_the_official_one() -> None:
    """The body's own boxes and five layers' are auxiliary; hs holds the queries at first, of layer 1 and of layer 6."""
    outputs = run("vidt_nano")[2]
    assert outputs["aux_logits"].shape == (6, 1, 100, 91)
    close(outputs["aux_boxes"], "vidt.one.aux_boxes", noises=1)
    close(outputs["neck_tokens"][[0, 1, 6]][..., ::8], "vidt.one.hs")
    assert torch.equal(outputs["det_tokens"], outputs["neck_tokens"][0])


def test_maps_and_tokens_of_the_body_are_the_official_ones() -> None:
    """Maps are of stages 2 to 4 and one more; stages' [DET] tokens before and behind the merging."""
    _, body, _, stages = run("vidt_nano")
    assert [tuple(one.shape[1:]) for one in body.maps] == [(96, 12, 16), (192, 6, 8), (384, 3, 4), (256, 2, 2)]
    for place, one in enumerate(body.maps):
        close(one[:, :8], f"vidt.one.patch_out{place}")
    for place, (dets, merged) in enumerate(stages, 1):
        close(dets[..., ::8], f"vidt.one.stage{place}.det")
        close(merged[..., ::8], f"vidt.one.stage{place}.det_after_merge")
    assert torch.equal(body.dets, stages[3][0])
    _, without, _, _ = run("vidt_wo_neck_nano")
    assert [tuple(one.shape[1:]) for one in without.maps] == [(96, 12, 16), (192, 6, 8), (384, 3, 4)]
    close(without.dets[..., ::8], "vidt_wo_neck.one.stage4.det")


def test_what_enters_the_neck_is_official() -> None:
    model, body, _, _ = run("vidt_nano")
    with torch.no_grad():
        close(model.neck.positions.tokens(body.positions)[..., ::8], "vidt.one.neck_query_pos")
        close(model.neck(body).references, "vidt.one.init_reference", noises=1)


def test_positions_of_patches_are_official() -> None:
    """Sines of a map with padding, as DET x PATCH adds them: not centred."""
    came = sine(golden()["sinpos.mask"], 96).permute(0, 2, 3, 1)
    torch.testing.assert_close(came[..., ::8], golden()["sinpos.dim96"], rtol=0, atol=1e-6)


def test_distillation_is_the_official_one() -> None:
    """Four maps, the body's [DET] tokens, and the sum of seven of the neck; then the root. Oracle: golden, by numbers
    that are drawn here as they were there."""
    generator = torch.Generator().manual_seed(7)
    torch.randn(2, 100, 91, generator=generator)  # logits and boxes stood before
    torch.rand(2, 100, 4, generator=generator)
    for n in (5, 9):
        torch.rand(n, 2, generator=generator), torch.rand(n, 2, generator=generator)
        torch.randint(1, 91, (n,), generator=generator)
    sides = []
    for _ in range(2):
        maps = [torch.randn(2, 256, h, w, generator=generator) for h, w in ((12, 16), (6, 8), (3, 4), (2, 2))]
        dets, neck = (torch.randn(*shape, generator=generator) for shape in ((2, 100, 256), (7, 2, 100, 256)))
        sides.append({"patch_tokens": maps, "det_tokens": dets, "neck_tokens": neck})
    student, teacher = sides
    far = token_distances(student, teacher)
    assert far.neck is not None
    assert (far.sizes, far.neck.shape) == ((192, 48, 12, 4), (7,))
    parts = torch.cat([far.patches, far.det[None], far.neck.sum()[None]])
    torch.testing.assert_close(parts, golden()["vidt.distil.parts"], rtol=2e-7, atol=0)
    loss = token_matching(student, teacher, weight=1.0, official=True)
    torch.testing.assert_close(loss, golden()["vidt.crit.loss_distil"], rtol=2e-7, atol=0)
    assert loss.item() == pytest.approx(16.48011, abs=1e-5)


@EVERY
def test_names_shapes_and_counts(name: str) -> None:
    """Oracle: the tensors and the counts of the manifest, and of the sheet: what is used, what is never, what twice."""
    manifest, chosen = fill.manifest(name), official.adapter(name)
    with torch.device("meta"):
        made = chosen.build()
    assert isinstance(made, ViDT)
    folded = chosen.fold(fill.shapes(name))
    unused = [key for key in folded if any(pattern.search(key) for pattern in map(re.compile, chosen.never_used))]
    assert sorted(unused) == sorted(manifest["never_used_in_forward"])
    ours = {chosen.rename(key): tuple(value.shape) for key, value in folded.items() if key not in unused}
    assert {key: tuple(value.shape) for key, value in made.state_dict().items()} == ours
    tables = [key for key, _, kind in fill.rows(manifest) if kind == torch.int64]
    twice = len(fill.rows(manifest)) - len(tables) - len(folded)
    assert twice == len(manifest["aliases_of_earlier_name"]) == (0 if "wo_neck" in name else 42)
    count = sum(p.numel() for p in made.parameters())
    never = sum(folded[key].numel() for key in unused)
    assert (count + never, never) == COUNTS[name]
    assert (manifest["params_total"], manifest["never_used_params"]) == COUNTS[name]
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in manifest["swin"].items()}
    blocks = [stage.blocks for stage in made.body.stages]
    assert own["depths"] == tuple(map(len, blocks))  # type: ignore[arg-type]
    assert own["num_heads"] == tuple(stage[0].windows.attention.heads for stage in blocks)  # type: ignore[index, union-attr]
    assert (own["embed_dim"], own["window"]) == (made.body.embedding.width, made.body.window)
    assert made.body.cross_stages == set(manifest["constructor"]["cross_indices"])
    assert made.queries == manifest["constructor"]["det_token_num"]


@EVERY
def test_every_one_is_told_from_the_others(name: str) -> None:
    """Without numbers, in the wrapper of a release."""
    assert official.recognise({"model": fill.shapes(name), "epoch": 49}) == name


@pytest.mark.parametrize("name", ["vidt_small", "vidt_wo_neck_base"])
def test_the_outputs_of_larger_ones(name: str) -> None:
    """Their shapes, which need no numbers."""
    with torch.device("meta"):
        outputs = official.adapter(name).build().eval()(torch.zeros(2, 3, 96, 128))
    columns, layers = (92, None) if "wo_neck" in name else (91, (6, 2, 100, 4))
    assert (outputs["logits"].shape, outputs["boxes"].shape) == ((2, 100, columns), (2, 100, 4))
    assert layers is None or outputs["aux_boxes"].shape == layers


def test_a_larger_one_is_finite() -> None:
    with torch.no_grad():
        outputs = official.adapter("vidt_tiny").build().eval()(images((65, 60)))
    assert all(bool(values.isfinite().all()) for values in outputs.values())


def test_the_fill_rule() -> None:
    """Oracle: sum and sum of sizes that the manifests tell of some tensors."""
    for name in ("vidt_nano", "vidt_wo_neck_nano"):
        for key, (total, size) in fill.manifest(name)["fill_check"].items():
            values = weights(name)[key].double()
            assert values.sum().item() == pytest.approx(total, abs=1e-5)
            assert values.abs().sum().item() == pytest.approx(size, abs=1e-5)


def test_what_is_never_used_is_reported(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    kept = {
        key: torch.ones(1).expand(shape)
        for key, shape, kind in fill.rows(fill.manifest("vidt_nano"))
        if kind.is_floating_point
    }
    torch.save({"model": kept}, tmp_path / "vidt.pth")  # one number for each tensor: a small file
    with caplog.at_level("INFO"):
        loaded = official.load("vidt_nano", tmp_path / "vidt.pth")
    assert "19 tensors that the official code never uses were passed over" in caplog.text
    assert "transformer.level_embed" in caplog.text
    assert bool((loaded.state_dict()["neck.box_heads.6.layers.2.bias"] == 1).all())


def test_another_file_is_refused() -> None:
    """Without numbers but for the two names of a head."""
    state = fill.shapes("vidt_nano")
    twice = "transformer.decoder.bbox_embed.3.layers.0.bias"
    with torch.device("meta"):
        for lost in ("backbone.det_token", "tgt_proj.1.bias", "class_embed.0.weight", "backbone.patch_embed.norm.bias"):
            with pytest.raises(official.Misfit, match="1 missing"):
                official.load("vidt_nano", {key: value for key, value in state.items() if key != lost})
        for more in ("backbone.norm4.weight", "level_embed", "backbone.layers.4.downsample.norm.bias"):
            with pytest.raises(official.Misfit, match=f"1 unexpected: {more}"):
                official.load("vidt_nano", state | {more: torch.zeros(1)})
        official.load("vidt_nano", {key: value for key, value in state.items() if key != twice})
        with pytest.raises(official.Misfit, match="missing"):
            official.load("vidt_nano", fill.shapes("vidt_wo_neck_nano"))
        with pytest.raises(
            official.Misfit, match=f"{twice.removeprefix('transformer.decoder.')} and {twice} must be the same"
        ):
            official.load("vidt_nano", state | {twice: torch.zeros(255)})
    here = torch.zeros(256)
    with pytest.raises(official.Misfit, match="must be the same tensor"):
        official.load("vidt_nano", state | {twice: here, twice.removeprefix("transformer.decoder."): here + 1})
