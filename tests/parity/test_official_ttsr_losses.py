"""TTSR's losses and its critic. Oracle: what the authors' code computed (goldens), and the tensors of its critic."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from course_lib import official
from course_lib.blocks.vgg import VGG, VGG19
from course_lib.super_resolution.discriminator import Discriminator
from course_lib.super_resolution.relevance import search, transfer
from course_lib.super_resolution.texture_losses import Norm, critic_loss, gradient_penalty, reconstruction, transferal
from tests.parity import fill

LEVELS = ["relu1_1", "relu2_1", "relu3_1"]
SLICES = ("slice1.", "slice2.", "slice3.")


def losses() -> dict[str, float]:
    found: dict[str, float] = json.loads((fill.HERE / "golden" / "ttsr_losses.json").read_text(encoding="utf-8"))[
        "losses"
    ]
    return found


def extractor() -> VGG:
    """The texture extractor as a piece of VGG19: the numbers behind the official slices are those of VGG19's layers."""
    state = fill.weights(fill.manifest("ttsr"))
    inner = {name.removeprefix("LTE."): value for name, value in state.items() if name.startswith("LTE.slice")}
    stack = VGG(VGG19, last="relu3_1").requires_grad_(False)
    stack.load_published({name.partition(".")[2]: value for name, value in inner.items()}, prefix="")
    assert len(inner) == len(stack.state_dict()) == 10
    assert all(name.startswith(SLICES) for name in inner)
    return stack


@pytest.fixture(scope="module")
def seen() -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """The result in [-1, 1], its maps, the textures of the reference that our search finds, and S; fine to coarse."""
    stack = extractor()
    lr_up, ref, ref_down_up = (
        fill.picture((1, 3, *size), seed) for size, seed in (((40, 48), 53), ((48, 56), 54), ((48, 56), 55))
    )
    index, soft = search(stack(lr_up), stack(ref_down_up))
    textures = [transfer(level, index, step) for level, step in zip(stack.maps(ref, LEVELS), (4, 2, 1), strict=True)]
    with safe_open(fill.HERE / "golden" / "ttsr.safetensors", "pt") as golden:
        sr = golden.get_tensor("sr")
    return sr, stack.maps((sr + 1) / 2, LEVELS), textures, soft


def test_reconstruction(seen: tuple[Tensor, list[Tensor], list[Tensor], Tensor]) -> None:
    """The code's pictures are in [-1, 1]; in [0, 1] the loss is half of its."""
    sr, hr = seen[0], fill.picture((1, 3, 40, 48), seed=11)
    assert float(reconstruction(sr, 2 * hr - 1)) == pytest.approx(losses()["rec_l1"], rel=1e-6)
    assert float(reconstruction((sr + 1) / 2, hr)) == pytest.approx(losses()["rec_l1"] / 2, rel=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("weighted", [False, True])
def test_transferal(seen: tuple[Tensor, list[Tensor], list[Tensor], Tensor], norm: Norm, weighted: bool) -> None:
    _, maps, textures, soft = seen
    came = float(transferal(maps, textures, soft if weighted else None, norm))
    assert came == pytest.approx(losses()[f"tpl_{norm}_useS{int(weighted)}"], rel=2e-6)


def test_the_critic_loads_strictly() -> None:
    """Oracle: names, shapes and count of the authors' code. Its tensors under our names are all that ours has."""
    manifest = fill.manifest("ttsr_discriminator")
    shapes = {key: shape for key, shape, _ in fill.rows(manifest)}
    with torch.device("meta"):
        critic = official.adapter("ttsr_discriminator").build()
    own = {key: tuple(value.shape) for key, value in critic.state_dict().items()}
    assert own == {official.adapter("ttsr_discriminator").rename(key): shape for key, shape in shapes.items()}
    assert len(own) == len(shapes) == manifest["n_tensors"]
    assert sum(p.numel() for p in critic.parameters()) == 17_821_473 == manifest["n_params_trainable"]
    assert isinstance(critic, Discriminator)
    assert critic.size == manifest["args"]["in_size"] == 160


def test_other_tensors_are_refused() -> None:
    """No number that the critic has not becomes one of its layers."""
    rename = official.adapter("ttsr_discriminator").rename
    assert [rename(name) for name in ("conv01.weight", "conv0.weight", "xfc1.bias")] == [
        "conv01.weight",
        "conv0.weight",
        "xfc1.bias",
    ]
    table = fill.rows(fill.manifest("ttsr_discriminator"))
    state = {key: torch.empty(shape, device="meta") for key, shape, _ in table if key != "conv10.bias"}
    with pytest.raises(official.Misfit, match=r"1 missing: convolutions\.9\.bias; 1 unexpected: conv11\.weight$"):
        official.load("ttsr_discriminator", {**state, "conv11.weight": torch.empty(1, device="meta")})


def test_the_critic_at_full_size() -> None:
    """Finite scores, losses and gradients, which differ from picture to picture; a file of another size is refused."""
    state = fill.weights(fill.manifest("ttsr_discriminator"))
    critic = official.load("ttsr_discriminator", state)
    real, fake = (fill.picture((1, 3, 160, 160), seed) for seed in (1, 2))
    penalty = gradient_penalty(critic, real, fake, torch.tensor([0.25]))
    (gradient,) = torch.autograd.grad(critic_loss(critic, real, fake) + 10 * penalty, next(critic.parameters()))
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    assert penalty.isfinite()
    with torch.no_grad():
        assert (critic(real) - critic(fake)).abs() > 1e-4
    with pytest.raises(official.Misfit, match=r"1 misshapen: fc1\.weight is \(1024, 8192\), must be \(1024, 12800\)"):
        official.load("ttsr_discriminator", state | {"fc1.weight": torch.zeros(1024, 8192)})
