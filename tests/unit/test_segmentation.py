"""The small segmentation network: oracles are hand counts, PyTorch's layers and exact trips through full rank."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from course_lib.segmentation import (
    STRIDE,
    Decoder,
    SegmentationNet,
    best_bilinear,
    best_windows,
    class_iou,
    confusion_matrix,
    decoder_cost,
    hidden_width,
    mean_iou,
)
from course_lib.training.recipes import get, names
from course_lib.upsampling import fit_projection, label_windows


def blocks(classes, n=3, side=32, r=8, seed=0):
    """Return maps that are constant on r x r windows."""
    small = torch.randint(classes, (n, side // r, side // r), generator=torch.Generator().manual_seed(seed))
    return small.repeat_interleave(r, 1).repeat_interleave(r, 2)


def test_iou_by_hand():
    labels = torch.tensor([[0, 0, 1, 1, 2, 2]])
    predicted = torch.tensor([[0, 1, 1, 1, 2, 0]])
    table = confusion_matrix(predicted, labels, 4)
    assert table.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    ious = class_iou(table)
    torch.testing.assert_close(ious[:3], torch.tensor([1 / 3, 2 / 3, 1 / 2], dtype=torch.float64))
    assert math.isnan(float(ious[3]))  # a class that nobody has
    assert mean_iou(predicted, labels, 4) == pytest.approx(0.5)
    assert mean_iou(labels, labels, 3) == 1


@pytest.mark.parametrize("kinds", [(torch.uint8, torch.uint8), (torch.int64, torch.uint8), (torch.int16, torch.int32)])
def test_any_integers_are_counted_alike(kinds):
    """Oracle: a loop over pixels; 20 * 21 + 20 is more than 255, the largest number of uint8."""
    draw = torch.Generator().manual_seed(0)
    predicted, labels = (torch.randint(21, (2, 9, 7), generator=draw) for _ in range(2))
    table = [[0] * 21 for _ in range(21)]
    for i, j in zip(labels.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        table[i][j] += 1
    assert confusion_matrix(predicted.to(kinds[0]), labels.to(kinds[1]), 21).tolist() == table
    every = torch.arange(21, dtype=kinds[0])
    assert mean_iou(every, every, 21) == 1


@pytest.mark.parametrize(("dtype", "ignore"), [(torch.uint8, 255), (torch.int64, -100), (torch.uint8, -100)])
def test_unlabelled_pixels_do_not_count(dtype, ignore):
    """Oracle: the same maps without those pixels; in uint8 -100 is nobody's label, not class 156."""
    labels = torch.tensor([[0, 1, 2, 156], [1, 1, 2, 0]])
    predicted = torch.tensor([[0, 1, 1, 156], [1, 0, 2, 2]])
    whole = confusion_matrix(predicted, labels, 157)
    assert torch.equal(confusion_matrix(predicted, labels.to(dtype), 157, ignore=ignore), whole)
    if dtype == torch.uint8 and ignore < 0:
        return
    labels[1, 2:] = ignore
    fewer = confusion_matrix(predicted, labels.to(dtype), 157, ignore=ignore)
    assert torch.equal(fewer, confusion_matrix(predicted.flatten()[:6], labels.flatten()[:6], 157))
    assert mean_iou(predicted, labels.to(dtype), 157, ignore) == class_iou(fewer).nanmean()


ONE = torch.zeros(2, 32, 32, dtype=torch.long)
BAD = [
    (lambda: confusion_matrix(ONE + 4, ONE, 4), ValueError, r"predicted must be 0\.\.3, got 4"),
    (lambda: confusion_matrix(ONE, ONE - 1, 4), ValueError, r"labels must be 0\.\.3, got -1"),
    (lambda: confusion_matrix(ONE, ONE + 255, 4), ValueError, r"labels must be 0\.\.3, got 255; ignore=255"),
    (lambda: confusion_matrix(ONE + 255, ONE + 255, 4, 255), ValueError, r"predicted must be 0\.\.3, got 255$"),
    (lambda: confusion_matrix(ONE, ONE[0], 4), ValueError, r"predicted must have the shape of labels, \(32, 32\), got"),
    (lambda: confusion_matrix(ONE.float(), ONE, 4), TypeError, "predicted must be integers"),
    (lambda: confusion_matrix(ONE, ONE.tolist(), 4), TypeError, "labels must be a torch.Tensor, got list"),
    (lambda: confusion_matrix(ONE, ONE, 0), ValueError, "classes must be at least 1, got 0"),
    (lambda: mean_iou(ONE, ONE, 4, 1.5), TypeError, r"ignore must be a whole number or None, got 1\.5"),
    (lambda: best_bilinear(ONE, 5, 4), ValueError, r"labels must be .* multiples of r = 5, got \(2, 32, 32\)"),
    (lambda: best_bilinear(ONE[0], 8, 4), ValueError, r"labels must be \(n, H, W\) .* got \(32, 32\)"),
    (lambda: best_bilinear(ONE + 4, 8, 4), ValueError, r"labels must be 0\.\.3, got 4"),
    (lambda: decoder_cost("bilnear", 96, 4, 32), ValueError, "decoder must be one of 'bilinear', .*, got 'bilnear'"),
    (lambda: SegmentationNet("bilinear", widths=(4, 4)), ValueError, r"widths must be four, .* got \(4, 4\)"),
    (lambda: SegmentationNet("shuffle")(torch.zeros(1, 3, 100, 96)), ValueError, r"multiples of 16, got \(1, 3, 100"),
    (lambda: SegmentationNet("shuffle")(torch.zeros(1, 3, 96, 40)), ValueError, r"multiples of 16, got \(1, 3, 96, 40"),
    (lambda: SegmentationNet("shuffle")(torch.zeros(1, 1, 32, 32)), ValueError, r"image must be \(B, 3, H, W\)"),
    (lambda: SegmentationNet("shuffle")([[0.0]]), TypeError, "image must be a torch.Tensor, got list"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_decoders_cost_the_same():
    """Oracle: multiplications counted on the layers themselves, per place of the coarse map."""
    fitted = fit_projection(label_windows(blocks(4, n=20, side=64, r=4), STRIDE, 4), 32)
    nets = {d: SegmentationNet(d, projection=fitted if d.startswith("dupsampling") else None) for d in DECODERS}
    counted = {}
    for name, net in nets.items():
        layers = [m for part in (net.head, net.up) for m in part.modules() if isinstance(m, torch.nn.Conv2d)]
        counted[name] = sum(m.weight.numel() for m in layers)
    counted["bilinear"] += 4 * STRIDE**2 * 4  # four tents for each of the 16 x 16 x 4 scores
    for name, cost in counted.items():
        assert decoder_cost(name, 96, 4, 32) == cost
        assert cost == pytest.approx(counted["shuffle"], rel=0.01)
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    assert sizes["dupsampling"] == sizes["shuffle"]
    assert sizes["bilinear"] == pytest.approx(sizes["shuffle"], rel=0.02)
    assert hidden_width(96, 4, 32) == 317


DECODERS = get_args(Decoder)
FROZEN = {"dupsampling": ["up.conv_w.weight"], "dupsampling-plain": ["softmax.T", "up.conv_w.weight"]}


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_network(decoder):
    """Scores for every pixel of a picture that is not square; gradients for all that is trained, W excepted."""
    torch.manual_seed(0)
    fitted = fit_projection(label_windows(blocks(4, n=20, side=64, r=4), STRIDE, 4), 32)
    net = SegmentationNet(decoder, projection=fitted if decoder.startswith("dupsampling") else None)
    image, labels = torch.rand(2, 3, 32, 48), torch.randint(4, (2, 32, 48))
    scores = net(image)
    assert scores.shape == (2, 4, 32, 48)
    loss = net.loss(image, labels)
    torch.testing.assert_close(loss, F.cross_entropy(net(image), labels))  # T starts as 1
    loss.backward()
    frozen = [name for name, p in net.named_parameters() if p.grad is None]
    assert frozen == FROZEN.get(decoder, [])


def test_the_wrong_decoder_is_named():
    with pytest.raises(ValueError, match=r"decoder must be one of bilinear, dupsampling, .*, shuffle, got 'nearest'"):
        SegmentationNet("nearest")
    with pytest.raises(ValueError, match=r"projection must be given .* got none for dupsampling"):
        SegmentationNet("dupsampling")
    with pytest.raises(ValueError, match="got one for shuffle"):
        SegmentationNet("shuffle", projection=fit_projection(torch.eye(1024)[:40], 32))


def test_trips_to_the_coarse_grid_and_back():
    """Half planes survive bilinear's best trip but for their edge; windows of full rank survive exactly."""
    half = torch.zeros(1, 32, 32, dtype=torch.long)
    half[:, :, 16:] = 1
    assert torch.equal(best_bilinear(half, 8, 2), half)
    assert torch.equal(best_bilinear(half.mT, 8, 2), half.mT)
    assert torch.equal(best_bilinear(half.to(torch.uint8), 8, 2), half)
    wide = half.repeat(1, 1, 2)[:, :, :48]
    assert torch.equal(best_bilinear(wide, 8, 2), wide)
    maps = torch.randint(3, (40, 8, 12), generator=torch.Generator().manual_seed(1))
    windows = label_windows(maps, 4, 3)
    assert torch.equal(best_windows(maps, fit_projection(windows, 33), 4, 3), maps)  # 16 * (3 - 1) + 1
    few = best_windows(maps, fit_projection(windows, 4), 4, 3)
    assert 0.3 < mean_iou(few, maps, 3) < 0.7


def test_best_bilinear_beats_other_scores():
    """Oracle: the squared error of 20 random neighbours of the pseudo-inverse's scores is never smaller."""
    maps = blocks(3, n=1, side=32, r=4)
    one_hot = F.one_hot(maps, 3).movedim(-1, 1).double()
    draw = torch.Generator().manual_seed(0)

    def lost(coarse):
        return (F.interpolate(coarse, scale_factor=8, mode="bilinear") - one_hot).square().sum()

    coarse = torch.zeros(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        (gradient,) = torch.autograd.grad(lost(coarse), coarse)
        coarse = (coarse - 0.01 * gradient).detach().requires_grad_()
    enlarged = F.interpolate(coarse, scale_factor=8, mode="bilinear")
    assert torch.equal(enlarged.argmax(1), best_bilinear(maps, 8, 3))
    for _ in range(20):
        step = 0.05 * torch.randn(coarse.shape, generator=draw, dtype=torch.float64)
        assert lost(coarse + step) >= lost(coarse) - 1e-9


def test_the_recipes():
    assert [name for name in names() if name.startswith("segment-")] == sorted(f"segment-{d}" for d in DECODERS)
    small = {"side": 32, "object_size": (8, 20), "rank": 4, "fitted": 6, "held_out": 60, "steps": 2, "batch": 2}
    for decoder in DECODERS:
        recipe = get(f"segment-{decoder}", **small)
        torch.manual_seed(0)
        net = recipe.model()
        batch = recipe.collate([recipe.data().sample(i) for i in range(2)])
        loss, logs = recipe.loss(net, batch)
        loss.backward()
        assert float(logs["temperature"].detach()) == 1
        with torch.no_grad():
            found = recipe.validate(net.eval())
        assert set(found) == {"miou", "iou_background", "iou_disc", "iou_square", "iou_triangle"}
        assert 0 <= found["miou"] < 0.5
        assert recipe.factor(1) <= 1
    with pytest.raises(ValueError, match="side of the recipe segment-shuffle must be a multiple of 16, got 40"):
        get("segment-shuffle", side=40)


def test_nobody_trains_on_what_is_held_out():
    """Held-out scenes come from another seed, and W from training scenes of the run's own seed."""
    one, two = (get("segment-dupsampling", seed=s, fitted=10, side=32, object_size=(8, 20), rank=4) for s in (0, 1))
    assert one.data().scenes.seed == 0
    assert two.data().scenes.seed == 1
    assert not torch.equal(one.projection().up, two.projection().up)
    labels = torch.stack([one.data().sample(i)[1] for i in range(10)])
    again = fit_projection(label_windows(labels, 16, 4), 4)
    assert torch.equal(one.projection().up, again.up)
