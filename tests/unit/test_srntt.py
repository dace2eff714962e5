"""SRNTT in miniature: its filters, where it finds patches, how it lays them, and what weighting is worth."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from course_lib.datasets.photographs import photograph
from course_lib.datasets.references import inputs, related
from course_lib.plain.ttsr import relevance, transfer_folded
from course_lib.super_resolution.crossnet import CrossNet
from course_lib.super_resolution.metrics import psnr
from course_lib.super_resolution.srntt import SRNTT, FilterBank, match, swap
from course_lib.super_resolution.ttsr import bicubic_up, down_up


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gain(model, fields):
    """Return how many decibels better than bicubic a model's result is."""
    result = model(fields["lr"], fields["lr_up"], fields["ref"], fields["ref_down_up"])
    return float(psnr(result, fields["hr"]) - psnr(fields["lr_up"], fields["hr"]))


def seen(name="astronaut", side=96, **how):
    return inputs(*related(photograph(name), (side, side), **how))


def shuffled(picture, side=32):
    """The tiles of a picture (3, H, W), in reverse order."""
    rows = [torch.cat(row.split(side, -1)[::-1], -1) for row in picture.split(side, -2)[::-1]]
    return torch.cat(rows, -2)


def test_filters_are_derivatives_of_gaussians():
    """Oracle: scipy's gaussian_filter of order 1 and 2, up to a factor."""
    picture = rand(60, 60)
    bank = FilterBank(sigmas=(2.0,), angles=2).double()
    ours = torch.nn.functional.conv2d(picture[None, None], bank.filters)[0]
    for number, order in enumerate(((0, 1), (0, 2), (1, 0), (2, 0))):
        theirs = scipy.ndimage.gaussian_filter(picture.numpy(), 2.0, order=order, truncate=3.0)[6:-6, 6:-6]
        assert np.corrcoef(ours[number].flatten(), theirs.flatten())[0, 1] > 0.99


def test_filters_ignore_brightness_and_have_unit_length():
    """Oracle: the docstring."""
    filters = FilterBank(sigmas=(1.0, 2.0, 3.5), angles=3).double().filters
    assert filters.shape == (18, 1, 23, 23)
    torch.testing.assert_close(filters.sum((-2, -1)), torch.zeros(18, 1, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        filters.square().sum((-2, -1)), torch.ones(18, 1, dtype=torch.float64), rtol=0, atol=1e-5
    )
    assert FilterBank()(torch.full((1, 3, 16, 20), 0.7)).abs().max() < 1e-6


def test_features_turn_with_the_picture():
    """Equivariance: a quarter turn exchanges the angles; the first derivative of one of them changes its sign."""
    picture = rand(1, 3, 24, 32)
    bank = FilterBank(sigmas=(1.5,), angles=2).double()
    first, turned = bank(picture), bank(picture.rot90(1, (-2, -1)))
    assert first.shape == (1, 4, 6, 8)
    expected = first.rot90(1, (-2, -1))[:, [2, 3, 0, 1]]
    # counter-clockwise: what rose to the right now rises upwards, against the rows; what rose downwards, to the right
    expected[:, 2] *= -1
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pool", [2, 4, 8])
def test_windows_are_in_the_middle_of_their_pixels(pool):
    """Equivariance: a mirrored picture has mirrored features, whatever the window; so none is off its cell."""
    picture = rand(1, 3, 24, 16)
    bank = FilterBank(sigmas=(1.0,), angles=2, pool=pool, rectified=True).double()
    first, mirrored = bank(picture), bank(picture.flip(-1))
    assert first.shape == (1, 8, 6, 4)
    # (d, dd) along x, (d, dd) along y; positive parts, then negative: d along x exchanges its own two
    torch.testing.assert_close(mirrored.flip(-1)[:, [4, 1, 2, 3, 0, 5, 6, 7]], first, rtol=0, atol=1e-12)


def test_overlaps_are_averaged_by_hand():
    """Oracle: a row where every place asks for 1, 2, 3: inside the mean of the three is 2, at the ends of two."""
    value = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3).double()
    flow = torch.zeros(1, 2, 1, 5, dtype=torch.float64)
    flow[0, 1, 0] = 1 - torch.arange(5)
    assert swap(value, flow, step=1).flatten().tolist() == [1.5, 2, 2, 2, 2.5]


@pytest.mark.parametrize("step", [1, 2, 4])
def test_swap_is_the_folded_transfer_by_count(step):
    """Oracle: plain.ttsr's patches, folded; of ones it is the count of those that lie in the reference. Gradients too.

    An average by count where TTSR divides by nine.
    """
    value = rand(2, 3, 5 * step, 6 * step).requires_grad_()
    index = torch.randint(30, (2, 4, 7), generator=torch.Generator().manual_seed(1))
    down = step * (index // 6 - torch.arange(4)[:, None])
    right = step * (index % 6 - torch.arange(7))
    ours = swap(value, torch.stack([down, right], 1).double(), step)
    count = transfer_folded(torch.ones_like(value), index, step)
    theirs = transfer_folded(value, index, step) / count
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weight = rand(*ours.shape, seed=2)
    gradients = [torch.autograd.grad(one, value, weight)[0] for one in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_a_patch_that_lies_nowhere_is_zero():
    """Oracle: no patch of a reference far away has a pixel to give."""
    flow = torch.full((1, 2, 2, 2), 100.0)
    assert swap(torch.ones(1, 1, 8, 8), flow).abs().max() == 0


def test_a_match_is_the_largest_relevance():
    """Oracle: plain.ttsr's matrix of all pairs for each of the 16 phases, the largest of all of them."""
    target, reference = rand(1, 3, 24, 28), rand(1, 3, 20, 32, seed=1)
    bank = FilterBank(sigmas=(1.0,), angles=2).double()
    flow, score = match(target, reference, bank)
    query = bank(target)
    every = torch.full((6 * 7, 20, 32), -2.0, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            key = bank(reference[..., i : i + (20 - i) // 4 * 4, j : j + (32 - j) // 4 * 4])
            found = relevance(query, key)[0].T.reshape(42, *key.shape[-2:])
            every[:, i : i + 4 * key.shape[-2] : 4, j : j + 4 * key.shape[-1] : 4] = found
    best, place = every.flatten(1).max(1)
    torch.testing.assert_close(score.flatten(), best, rtol=0, atol=1e-12)
    rows, columns = 4 * torch.arange(6)[:, None], 4 * torch.arange(7)
    assert torch.equal(flow[0, 0], (place // 32).view(6, 7) - rows)
    assert torch.equal(flow[0, 1], (place % 32).view(6, 7) - columns)


@pytest.mark.parametrize("size", [(4, 4), (4, 12), (8, 4)])
def test_a_reference_of_one_place_along_an_axis(size):
    """Oracle: the matches without phases along the sides that leave no room for others; four pixels have one place."""
    target, reference = rand(1, 3, 8, 8), rand(1, 3, *size, seed=1)
    flow, score = match(target, reference, FilterBank().double())
    once, least = match(target, reference, FilterBank().double(), phases=False)
    assert (score >= least).all()
    for axis in (0, 1):
        if size[axis] == 4:
            assert torch.equal(flow[:, axis], once[:, axis])
    assert SRNTT()(rand(1, 3, 2, 2), ref=reference).isfinite().all()


def test_a_moved_picture_is_found_where_it_is():
    """Oracle: the motion. Without phases only multiples of 4 are."""
    fields = seen(side=96, shift=(5, -6))
    pair = fields["lr_up"][None], fields["ref_down_up"][None]
    wanted = torch.tensor([-5.0, 6.0]).view(1, 2, 1, 1)
    flow, _ = match(*pair, FilterBank())
    near = (flow - wanted).abs().amax(1)[:, 4:-4, 4:-4] <= 1
    assert near.float().mean() > 0.7
    coarse, _ = match(*pair, FilterBank(), phases=False)
    assert (coarse % 4 == 0).all()


def test_contrast_changes_no_match():
    """Oracle: the query's length is a factor of all its relevances, and the filters do not see brightness."""
    fields = seen(side=64, shift=(3, 2))
    target, reference = fields["lr_up"][None].double(), fields["ref_down_up"][None].double()
    bank = FilterBank().double()
    flow, score = match(target, reference, bank)
    faint, same = match(0.25 * target + 0.5, reference, bank)
    assert (faint == flow).float().mean() > 0.99  # but for ties
    torch.testing.assert_close(same, score, rtol=0, atol=1e-6)


def test_the_picture_itself_gives_all_back():
    """Oracle: with ref = hr every patch finds itself, and lr_up + (hr - lr_up) = hr."""
    fields = seen(side=64)
    for weighted in (False, True):
        result = SRNTT(weighted=weighted)(fields["lr"], ref=fields["hr"])
        torch.testing.assert_close(result, fields["hr"], rtol=0, atol=1e-5)


def test_patches_are_found_where_a_flow_is_lost():
    """Oracle: bicubic, and CrossNet on the same pair: far motion, and tiles in another order."""
    target = seen(side=96)["hr"]
    for fields in (seen(side=96, shift=(24, 48)), inputs(target, shuffled(target))):
        assert gain(SRNTT(), fields) > 1
        assert gain(CrossNet(), fields) < 0


def test_an_unrelated_reference_harms_unless_weighted():
    """Oracle: bicubic. SRNTT's fusion takes every patch; weighting by similarity leaves most of the harm out."""
    target = seen("coffee", side=96)["hr"]
    fields = inputs(target, photograph("gravel")[:, 100:196, 100:196].expand(3, -1, -1))
    equal, weighted = gain(SRNTT(), fields), gain(SRNTT(weighted=True), fields)
    assert equal < -0.4
    assert weighted > equal / 2


def test_the_formula_dtypes_and_another_size():
    """Oracle: lr_up + swap of the detail, made of its parts; float32's result; one picture at a time."""
    fields = [seen(side=48, shift=(1, 2)), seen("chelsea", side=48, shift=(-2, 0))]
    lr = torch.stack([one["lr"] for one in fields])
    ref = torch.stack([seen(name, side=56)["ref"] for name in ("astronaut", "chelsea")])
    model = SRNTT()
    lr_up, blurred = bicubic_up(lr), down_up(ref)
    result = model(lr, ref=ref)
    flow, _ = match(lr_up, blurred, model.extractor)
    assert torch.equal(result, lr_up + swap(ref - blurred, flow))
    torch.testing.assert_close(model(lr[1], ref=ref[1]), result[1], rtol=0, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(lr, ref=ref), result)
    assert model(lr.bfloat16(), ref=ref.bfloat16()).dtype == torch.bfloat16
    assert model.double()(lr.double(), ref=ref.double()).dtype == torch.float64
    assert not list(model.parameters())


def test_gradients_reach_the_reference_and_the_similarity():
    """Oracle: the detail is linear in ref; the weights have gradients to an extractor that has weights."""
    fields = seen(side=32, shift=(1, 2))
    extractor = torch.nn.Conv2d(3, 4, 4, stride=4)
    ref = fields["ref"][None].clone().requires_grad_()
    SRNTT(extractor, weighted=True)(fields["lr"][None], ref=ref).square().sum().backward()
    assert ref.grad.abs().sum() > 0
    assert extractor.weight.grad.abs().sum() > 0


def test_errors_name_the_argument():
    """Oracle: the message says what came and what was expected."""
    with pytest.raises(ValueError, match=r"pool must be even.*got 3"):
        FilterBank(pool=3)
    with pytest.raises(ValueError, match="sigmas must be positive"):
        FilterBank(sigmas=(1.0, -1.0))
    with pytest.raises(ValueError, match="angles must be at least 1, got 0"):
        FilterBank(angles=0)
    with pytest.raises(ValueError, match="power must be a positive number, got 0"):
        SRNTT(power=0)
    with pytest.raises(ValueError, match="ref must be 1 pictures with multiples of 4"):
        SRNTT()(torch.rand(3, 8, 8), ref=torch.rand(3, 30, 32))
