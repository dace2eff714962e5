"""DETR under its official names gives the official outputs. Oracle: what the authors' code computed."""

from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_lib import official
from course_lib.blocks.positions import sine
from course_lib.detection.families.detr.detr import DETR
from tests.parity import fill

NAMES = ("detr_r50", "detr_r50_dc5", "detr_r101", "detr_r101_dc5")
NOISE = {"logits": 2.5e-6, "boxes": 2e-7}
"""Of the official code: its float32 against its float64. Ten times that is agreement."""


def golden() -> dict[str, Tensor]:
    with safe_open(fill.HERE / "golden" / "detr_r50.safetensors", "pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # it is no mapping


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """DETR-R50 with the drawn weights, and what it says of the golden's picture."""
    manifest = fill.manifest("detr_r50")
    state = fill.weights(manifest)
    model = official.load("detr_r50", {"model": state, "epoch": 499})
    assert isinstance(model, DETR)
    picture = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(7))
    kept: dict[str, Any] = {"model": model, "state": state, "picture": picture, "manifest": manifest}
    hook = model.body.register_forward_hook(lambda _, __, found: kept.update(body=found))
    with torch.no_grad():
        kept["seen"] = model.inspect(picture)
    hook.remove()
    return kept


def test_outputs_are_the_official_ones(made: dict[str, Any]) -> None:
    """Last layer, layers before it, the encoder's cells, the decoder's queries and the body's map."""
    seen, stored = made["seen"], golden()
    found = {
        "one.pred_logits": (seen["logits"], NOISE["logits"]),
        "one.pred_boxes": (seen["boxes"], NOISE["boxes"]),
        "one.aux_logits.every_5th": (seen["aux_logits"][:, :, ::5], NOISE["logits"]),
        "one.aux_boxes": (seen["aux_boxes"], NOISE["boxes"]),
        "one.memory": (seen["memory"].transpose(0, 1), NOISE["logits"]),
        "one.hs_last.every_5th": (seen["results"][-1].transpose(0, 1)[::5], NOISE["logits"]),
        "one.c5.mean_c": (made["body"][0].mean((1, 2)), NOISE["logits"]),
        "one.c5.slice": (made["body"][0, :16], NOISE["logits"]),
    }
    assert set(found) == {name for name in stored if name.startswith("one.")}
    for name, (output, noise) in found.items():
        assert output.shape == stored[name].shape
        assert float((output - stored[name]).abs().max()) <= 10 * noise, name
    assert seen["size"] == (3, 4)


def test_positions_are_the_official_ones() -> None:
    """Oracle: the authors' sines, of a mask with padding; normalised and not."""
    stored = golden()
    mask = stored["sine.mask"]
    for name, found in (
        ("sine.pos256.every_5th", sine(mask, 256)[:, ::5]),
        ("sine.pos32_unnormalised", sine(mask, 32, normalise=False)),
    ):
        torch.testing.assert_close(found, stored[name], rtol=0, atol=1e-6)


def test_a_mask_without_padding_changes_nothing_and_padding_does(made: dict[str, Any]) -> None:
    """Oracle: measured on the official code with these weights: a picture alone and padded differ by 0.59 in logits."""
    model, outputs = made["model"], made["seen"]
    generator = torch.Generator().manual_seed(7)
    first, second = (torch.randn(3, *size, generator=generator) for size in ((96, 128), (64, 96)))
    images, mask = torch.zeros(2, 3, 96, 128), torch.zeros(2, 96, 128, dtype=torch.bool)
    images[0], images[1, :, :64, :96] = first, second
    mask[1, 64:], mask[1, :, 96:] = True, True
    with torch.no_grad():
        both, alone = model(images, mask), model(second[None])
    for name, noise in NOISE.items():
        assert float((both[name][0] - outputs[name][0]).abs().max()) <= 10 * noise
    assert float((both["logits"][1] - alone["logits"][0]).abs().max()) == pytest.approx(0.59, abs=0.005)


def test_the_fill_rule(made: dict[str, Any]) -> None:
    """Oracle: sums, and sums of absolute values, that the manifest tells of some tensors."""
    assert made["manifest"]["fill_check"]
    for key, expected in made["manifest"]["fill_check"].items():
        values = made["state"][key].double()
        assert [float(values.sum()), float(values.abs().sum())] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_checkpoint_loads_strictly(name: str) -> None:
    """Oracle: the manifest's tensors and counts; what the released code trains and what it freezes."""
    manifest, chosen = fill.manifest(name.removesuffix("_dc5")), official.adapter(name)
    with torch.device("meta"):
        model = chosen.build()
        state = {chosen.rename(key): torch.empty(shape) for key, shape, _ in fill.rows(manifest)}
    official.fit(model, state, name)
    assert state.keys() == model.state_dict().keys()
    count = {"total": 0, "trainable": 0}
    for parameter in model.parameters():
        count["total"] += parameter.numel()
        count["trainable"] += parameter.numel() * parameter.requires_grad
    assert count == {kind: manifest[f"params_{kind}"] for kind in count}
    assert sum(buffer.numel() for buffer in model.buffers()) == manifest["buffers_total"]


@pytest.mark.parametrize("name", NAMES)
def test_every_checkpoint_is_configured_as_there(name: str) -> None:
    """Oracle: the manifest's constructor; sizes, strides and epsilons of the released code, which no tensor tells."""
    there = fill.manifest(name.removesuffix("_dc5"))["constructor"]
    dilated = name.endswith("_dc5")
    with torch.device("meta"):
        model = official.adapter(name).build()
        assert isinstance(model, DETR)
        seen = model.body(torch.empty(1, 3, 65, 97))
    assert tuple(seen.shape) == ((1, 2048, 5, 7) if dilated else (1, 2048, 3, 4))
    assert model.stride == (16 if dilated else 32)
    assert (model.queries, model.classes, model.background) == (there["num_queries"], 92, True)
    assert (model.picture, model.shorter, model.longer) == (None, 800, 1333)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {there["dropout"]}
    assert (len(model.encoder.layers), len(model.decoder.layers)) == (there["enc_layers"], there["dec_layers"])
    eps = {type(m).__name__: getattr(m, "eps", None) for m in model.modules() if "Norm" in type(m).__name__}
    assert eps == {"FrozenBatchNorm": 1e-5, "LayerNorm": 1e-5}


def test_the_larger_network_runs(made: dict[str, Any]) -> None:
    """DETR-R101 with its drawn weights, and dilated. Oracle: shapes; finite, and queries differ from each other."""
    state = fill.weights(fill.manifest("detr_r101"))
    for name in ("detr_r101", "detr_r101_dc5"):
        chosen = official.adapter(name)
        with torch.device("meta"):
            model = chosen.build().eval()
        model.load_state_dict({chosen.rename(key): value for key, value in state.items()}, assign=True)
        with torch.no_grad():
            outputs = model(made["picture"])
        assert (outputs["logits"].shape, outputs["boxes"].shape) == ((1, 100, 92), (1, 100, 4))
        assert (outputs["aux_logits"].shape, outputs["aux_boxes"].shape) == ((5, 1, 100, 92), (5, 1, 100, 4))
        assert all(output.isfinite().all() for output in outputs.values())
        assert outputs["logits"].std() > 0.1
        assert outputs["boxes"].std(1).min() > 0.005


def test_another_file_is_refused() -> None:
    """Oracle: the names, which the message tells as the released file has them; on the meta device."""
    state = fill.shapes("detr_r50")

    def fit(name: str, state: dict[str, Tensor]) -> None:
        chosen = official.adapter(name)
        with torch.device("meta"):
            model = chosen.build()
        ours = {chosen.rename(key): key for key in state}
        official.fit(model, {key: state[theirs] for key, theirs in ours.items()}, name, official=ours)

    for lost in ("query_embed.weight", "transformer.decoder.layers.3.multihead_attn.in_proj_bias"):
        with pytest.raises(official.Misfit, match=r"of detr_r50: 1 missing: "):
            fit("detr_r50", {key: value for key, value in state.items() if key != lost})
    another = torch.empty(256, device="meta")
    with pytest.raises(official.Misfit, match=r"of detr_r50: 1 unexpected: transformer\.encoder\.norm\.weight$"):
        fit("detr_r50", state | {"transformer.encoder.norm.weight": another})
    with pytest.raises(official.Misfit, match=r"missing: .*layer3\.6\."):
        fit("detr_r101", state)
