"""CrossNet in miniature: flows against known motions and scikit-image; what a reference gives, and when it harms."""

import numpy as np
import pytest
import skimage.registration
import torch

from course_lib.datasets.photographs import photograph
from course_lib.datasets.references import inputs, related
from course_lib.super_resolution.crossnet import CrossNet, estimate_flow
from course_lib.super_resolution.metrics import psnr
from course_lib.super_resolution.ttsr import bicubic_up, down_up
from course_lib.super_resolution.warping import warp


def views(down, right, side=96):
    """Two windows (1, 3, side, side) of a photograph, one moved: the flow between them is (-down, -right)."""
    picture = photograph("camera").double().expand(3, -1, -1)
    top, left = 140, 220
    return tuple(
        picture[None, :, top + y : top + y + side, left + x : left + x + side] for y, x in ((0, 0), (down, right))
    )


def gain(model, fields):
    """Return how many decibels better than bicubic a model's result is."""
    result = model(fields["lr"], fields["lr_up"], fields["ref"], fields["ref_down_up"])
    return float(psnr(result, fields["hr"]) - psnr(fields["lr_up"], fields["hr"]))


def seen(name="astronaut", side=128, **how):
    return inputs(*related(photograph(name), (side, side), **how))


@pytest.mark.parametrize(("down", "right"), [(0, 3), (5, -2), (-9, 11)])
def test_a_known_motion_is_found(down, right):
    """Oracle: the windows were cut there; the middle of the flow is right to a twentieth of a pixel."""
    target, reference = views(down, right)
    flow = estimate_flow(target, reference)
    assert flow.shape == (1, 2, 96, 96)
    expected = torch.tensor([-down, -right], dtype=flow.dtype).view(1, 2, 1, 1)
    assert (flow - expected)[..., 24:72, 24:72].abs().mean() < 0.05


def test_scikit_images_flow():
    """Oracle: optical_flow_ilk (iterative Lucas-Kanade in windows, coarse to fine), another's code of the method; on a
    picture that is a little nearer in the reference, so that the flow is another at each place.
    """
    target, reference = related(photograph("camera"), (96, 96), at=(140, 220), zoom=1.05)
    ours = estimate_flow(target[None], reference[None])[0, :, 16:80, 16:80].numpy()
    grey = [picture.mean(0).numpy() for picture in (target, reference)]
    theirs = skimage.registration.optical_flow_ilk(*grey, radius=8)[:, 16:80, 16:80]
    assert theirs.std() > 0.5
    assert np.median(np.abs(ours - theirs)) < 0.15


def test_a_far_motion_needs_levels():
    """Oracle: known motion; 12 pixels are 1.5 at level 3, and out of reach of level 0, whose slopes see a few."""
    target, reference = views(0, 12)
    middle = slice(24, 72)
    errors = [
        float((estimate_flow(target, reference, levels)[0, 1, middle, middle] + 12).abs().median()) for levels in (1, 4)
    ]
    assert errors[0] > 4
    assert errors[1] < 0.1


def test_nothing_moves_where_nothing_is_seen():
    """Oracle: equal pictures, and pictures without slopes, have flow 0, with finite gradients."""
    target, _ = views(0, 0, side=40)
    assert estimate_flow(target, target).abs().max() == 0
    flat = torch.full((1, 3, 24, 20), 0.5, dtype=torch.float64, requires_grad=True)
    flow = estimate_flow(flat, 0.4 * torch.ones_like(flat))
    flow.square().sum().backward()
    assert flow.abs().max() < 1e-10  # the border of a mean is rounded
    assert torch.isfinite(flat.grad).all()


def test_flow_turns_with_the_pictures():
    """Equivariance: transposed pictures have the transposed flow with its parts exchanged; a batch is its pictures."""
    target, reference = views(2, -4, side=64)
    flow = estimate_flow(target, reference)
    torch.testing.assert_close(estimate_flow(target.mT, reference.mT).mT.flip(1), flow, rtol=0, atol=1e-9)
    both = estimate_flow(torch.cat([target, reference]), torch.cat([reference, target]))
    torch.testing.assert_close(both[:1], flow, rtol=0, atol=1e-9)


def test_flow_has_gradients():
    """Oracle: differences of values, along a random direction."""
    target, reference = (picture.clone() for picture in views(0, 1, side=24))
    along = torch.rand(target.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    weight = torch.rand(1, 2, 24, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def total(picture):
        return (weight * estimate_flow(picture, reference, levels=2, steps=2)).sum()

    (gradient,) = torch.autograd.grad(total(target.requires_grad_()), target)
    with torch.no_grad():
        change = (total(target + 1e-6 * along) - total(target - 1e-6 * along)) / 2e-6
    assert float((gradient * along).sum()) == pytest.approx(float(change), rel=1e-4)


def test_the_picture_itself_gives_all_back():
    """Oracle: with ref = hr the flow is 0 and lr_up + (hr - lr_up) = hr."""
    fields = seen(side=64)
    for weighted in (False, True):
        result = CrossNet(weighted=weighted)(fields["lr"], ref=fields["hr"])
        torch.testing.assert_close(result, fields["hr"], rtol=0, atol=1e-6)


def test_small_motion_helps_and_large_motion_harms():
    """Oracle: bicubic. The claim and the criticism of chapter 11 in three numbers."""
    small, large = seen(shift=(1, 3)), seen(shift=(24, 48))
    assert gain(CrossNet(), small) > 4
    assert gain(CrossNet(), large) < -0.5
    assert gain(CrossNet(weighted=True), large) > gain(CrossNet(), large) + 0.5


def test_what_is_hidden_leaves_a_ghost():
    """Oracle: where a thing in front hides the ground in the reference, detail of the thing is laid on the ground."""
    ground, thing = photograph("coffee")[:, 100:196, 100:196], photograph("gravel")[:, 100:132, 100:132]
    target, reference = ground.clone(), ground.clone()
    target[:, 32:64, 24:56] = thing
    reference[:, 32:64, 36:68] = thing
    fields = inputs(target, reference)
    hidden = (slice(None), slice(34, 62), slice(58, 68))  # ground beside the thing, which is before it in the reference

    def gains(model):
        result = model(fields["lr"], fields["lr_up"], fields["ref"], fields["ref_down_up"])
        found = []
        for part in (slice(None), hidden):
            found.append(float(psnr(result[part], target[part]) - psnr(fields["lr_up"][part], target[part])))
        return found

    plain, weighted = gains(CrossNet()), gains(CrossNet(weighted=True))
    assert plain[0] > 3
    assert plain[1] < -6
    assert weighted[0] > plain[0]
    assert weighted[1] > plain[1] + 3


def test_the_formula():
    """Oracle: lr_up + warp(ref - ref_down_up, flow), made of its parts, for a reference of another size."""
    fields = seen(side=64, shift=(2, 1))
    reference = seen(side=80, shift=(2, 1))["ref"][None]
    lr = fields["lr"][None]
    lr_up, blurred = bicubic_up(lr), down_up(reference)
    flow = estimate_flow(lr_up, blurred)
    model = CrossNet()
    assert torch.equal(model(lr, ref=reference), lr_up + warp(reference - blurred, flow))
    assert torch.equal(model(lr[0]), lr_up[0])
    weight = CrossNet(weighted=True).agreement(lr_up, blurred, flow)
    assert 0 <= weight.min() < 0.5 < weight.max() <= 1
    assert CrossNet().agreement(lr_up, blurred, flow + 100).max() == 0  # beyond the reference nothing is known


def test_dtypes_and_batches():
    """Oracle: float32's result; one picture at a time."""
    fields = [seen(side=64, shift=(1, 2)), seen("chelsea", side=64, shift=(-2, 0))]
    lr, ref = (torch.stack([one[name] for one in fields]) for name in ("lr", "ref"))
    model = CrossNet()
    result = model(lr, ref=ref)
    torch.testing.assert_close(model(lr[1], ref=ref[1]), result[1], rtol=0, atol=1e-5)
    assert model(lr.bfloat16(), ref=ref.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(lr, ref=ref), result)
    assert model(lr.double(), ref=ref.double()).dtype == torch.float64


def test_errors_name_the_argument():
    """Oracle: the message says what came and what was expected."""
    lr, ref = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 36)
    with pytest.raises(ValueError, match=r"lr_up must be \(2, 3, 32, 32\), got \(2, 3, 16, 16\)"):
        CrossNet()(lr, torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match=r"ref must be 2 pictures with multiples of 4 pixels, got \(2, 3, 32, 33\)"):
        CrossNet()(lr, ref=ref[..., :33])
    with pytest.raises(ValueError, match="ref must be 2 pictures"):
        CrossNet()(lr, ref=ref[:1])
    with pytest.raises(ValueError, match=r"ref_down_up must be \(2, 3, 32, 36\), got"):
        CrossNet()(lr, ref=ref, ref_down_up=ref[..., :32])
    with pytest.raises(ValueError, match="tolerance must be a positive"):
        CrossNet(tolerance=0)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        estimate_flow(lr, lr, steps=0)
    with pytest.raises(TypeError, match="radius must be a whole number"):
        CrossNet(radius=1.5)
