"""Vision transformers under the official names give the official outputs. Oracle: what timm's DeiT computed."""

from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_lib import official
from course_lib.blocks.vit import Block, ViT
from course_lib.official import vit
from tests.parity import fill

COUNTS = {
    "deit_tiny": 5_717_416,
    "deit_small": 22_050_664,
    "deit_base": 86_567_656,
    "deit_tiny_distilled": 5_910_800,
    "deit_base_distilled_384": 87_630_032,
    "vit_tiny": 5_717_416,
    "vit_base_patch16_224": 86_567_656,
    "vit_ti16_jax": 5_717_416,
    "vit_s16_jax": 22_050_664,
    "vit_b16_jax": 86_567_656,
    "vit_l16_jax": 304_326_632,
}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return fill.weights(fill.manifest("deit_tiny"))


def test_the_fill_rule(weights: dict[str, Tensor]) -> None:
    """Oracle: sums, and sums of absolute values, that the manifest tells of some tensors."""
    for key, expected in fill.manifest("deit_tiny")["fill_check"].items():
        values = weights[key].double()
        assert [float(values.sum()), float(values.abs().sum())] == pytest.approx(expected, abs=1e-5)


def test_outputs_are_the_official_ones(weights: dict[str, Tensor]) -> None:
    """Tolerance: of the values' standard deviation; in float64 our outputs differ by 1.2e-4 of it from float32's."""
    model = official.load("deit_tiny", {"model": weights})
    assert isinstance(model, ViT)
    came: dict[str, Tensor] = {}
    for place in (0, 5, 11):

        def keep(_: nn.Module, __: Any, tokens: Tensor, place: int = place) -> None:
            came[f"block{place}"] = tokens[:1, ::7]

        model.blocks[place].register_forward_hook(keep)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        came["logits"] = model(images)
        came["cls_feature"] = model.features(images)[:, 0]
    with safe_open(fill.HERE / "golden" / "vit_deit_tiny.safetensors", "pt") as golden:
        assert golden.metadata()["input"] == "randn(2, 3, 224, 224), seed 7"
        assert {f"deit_tiny.{name}" for name in came} == set(golden.keys())
        for name, output in came.items():
            expected = golden.get_tensor(f"deit_tiny.{name}")
            assert output.shape == expected.shape
            error = float((output - expected).abs().max() / expected.std())
            assert error <= 2e-4, (name, error)


def test_the_distilled_network_runs(weights: dict[str, Tensor]) -> None:
    """Oracle: finite; the mean of two heads that differ; 198 positions."""
    manifest = fill.manifest("deit_tiny_distilled")
    model = official.load("deit_tiny_distilled", fill.weights(manifest))
    assert isinstance(model, ViT)
    images = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        both = model.logits(images)
        torch.testing.assert_close(model(images), both.mean(1))
    assert both.isfinite().all()
    assert model.positions.shape == (1, 198, 192)
    assert (both[:, 0] - both[:, 1]).abs().max() > 0.1


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_checkpoint_loads_strictly(name: str, count: int) -> None:
    """Oracle: the manifest's tensors and count of parameters; the activation that the release uses."""
    manifest, chosen = fill.manifest(name), official.adapter(name)
    with torch.device("meta"):
        model = chosen.build()
    assert isinstance(model, ViT)
    state = chosen.fold(fill.shapes(name))
    renamed = {chosen.rename(key): value for key, value in state.items()}
    assert len(renamed) == len(state)
    official.fit(model, renamed, name)
    assert model.state_dict().keys() == renamed.keys()
    assert sum(p.numel() for p in model.parameters()) == count == manifest["params_total"]
    block = model.blocks[0]
    assert isinstance(block, Block)
    shown = block.feed_forward.bend(torch.tensor([1.0])).item()
    assert shown == pytest.approx(0.841192 if name.endswith("jax") else 0.841345, abs=1e-6)


def test_all_checkpoints_are_here() -> None:
    assert set(COUNTS) == {*vit.MODELS, *vit.FLAX}


def test_flax_layout() -> None:
    """Oracle: what Flax's layers compute, written as sums over indices, in a network of two heads."""
    torch.manual_seed(0)
    model = ViT(4, 1, 2, 6, patch=2, picture=(4, 4), classes=3, activation="gelu_tanh").double().eval()
    at, block = "Transformer/encoderblock_0/", "MultiHeadDotProductAttention_1"
    shapes = {"cls": (1, 1, 4), "embedding/kernel": (2, 2, 3, 4), "embedding/bias": (4,)}
    shapes |= {"Transformer/posembed_input/pos_embedding": (1, 5, 4)}
    shapes |= {f"{at}{block}/{part}/kernel": (4, 2, 2) for part in ("query", "key", "value", "out")}
    shapes[f"{at}{block}/out/kernel"] = (2, 2, 4)
    shapes |= {f"{at}{block}/{part}/bias": (2, 2) for part in ("query", "key", "value")}
    shapes |= {f"{at}{block}/out/bias": (4,), f"{at}MlpBlock_3/Dense_0/kernel": (4, 6)}
    shapes |= {f"{at}MlpBlock_3/Dense_0/bias": (6,), f"{at}MlpBlock_3/Dense_1/kernel": (6, 4)}
    shapes |= {f"{at}MlpBlock_3/Dense_1/bias": (4,), "head/kernel": (4, 3), "head/bias": (3,)}
    norms = (f"{at}LayerNorm_0", f"{at}LayerNorm_2", "Transformer/encoder_norm")
    shapes |= {f"{norm}/{part}": (4,) for norm in norms for part in ("scale", "bias")}
    flax = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    folded = vit.fold_flax(flax)
    model.load_state_dict({vit.rename_flax(name): value for name, value in folded.items()})

    def norm(x: Tensor, name: str) -> Tensor:
        return nn.functional.layer_norm(x, (4,), flax[f"{name}/scale"], flax[f"{name}/bias"], 1e-6)

    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    cut = images.reshape(2, 3, 2, 2, 2, 2)  # n, channel, row of patches, row, column of patches, column
    patches = torch.einsum("ncaibj,ijcd->nabd", cut, flax["embedding/kernel"]).reshape(2, 4, 4) + flax["embedding/bias"]
    x = torch.cat((flax["cls"].expand(2, 1, 4), patches), 1) + flax["Transformer/posembed_input/pos_embedding"]
    y = norm(x, norms[0])
    q, k, v = (
        torch.einsum("nmd,dhe->nmhe", y, flax[f"{at}{block}/{part}/kernel"]) + flax[f"{at}{block}/{part}/bias"]
        for part in ("query", "key", "value")
    )
    shares = (torch.einsum("nqhe,nkhe->nhqk", q, k) / 2**0.5).softmax(-1)
    read = torch.einsum("nhqk,nkhe->nqhe", shares, v)
    x = x + torch.einsum("nqhe,hed->nqd", read, flax[f"{at}{block}/out/kernel"]) + flax[f"{at}{block}/out/bias"]
    y = norm(x, norms[1]) @ flax[f"{at}MlpBlock_3/Dense_0/kernel"] + flax[f"{at}MlpBlock_3/Dense_0/bias"]
    y = nn.functional.gelu(y, approximate="tanh")
    x = x + y @ flax[f"{at}MlpBlock_3/Dense_1/kernel"] + flax[f"{at}MlpBlock_3/Dense_1/bias"]
    expected = norm(x, norms[2])[:, 0] @ flax["head/kernel"] + flax["head/bias"]
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-11)
    lost = f"{at}{block}/key/kernel"
    with pytest.raises(official.Misfit, match=f"not the weights of a ViT in Flax: 1 missing: {lost}$"):
        vit.fold_flax({name: value for name, value in flax.items() if name != lost})


def test_another_file_is_refused() -> None:
    """Oracle: the names."""
    state = fill.shapes("deit_tiny")
    with pytest.raises(official.Misfit, match=r"1 missing: blocks\.3\.attention\.qkv\.bias$"):
        official.load("deit_tiny", {name: value for name, value in state.items() if name != "blocks.3.attn.qkv.bias"})
    with pytest.raises(official.Misfit, match=r"1 unexpected: blocks\.3\.attn\.qkv\.scale$"):
        official.load("deit_tiny", state | {"blocks.3.attn.qkv.scale": torch.empty(1)})
    with pytest.raises(official.Misfit, match="unexpected: dist_token"):
        official.load("deit_tiny", fill.shapes("deit_tiny_distilled"))
