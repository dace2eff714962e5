"""LIIF's fast form. Oracle: the plain form, which follows the paper's equations, with its gradients."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from course_lib import checkpoints
from course_lib.plain import liif_plain
from course_lib.super_resolution import liif
from course_lib.super_resolution.any_scale import Span
from course_lib.super_resolution.liif import LIIF
from tests.unit.networks import Largest

SWITCHES = list(itertools.product((True, False), repeat=3))


def model(*switches: bool, **more: Any) -> LIIF:
    torch.manual_seed(2)
    names = ("local_ensemble", "feature_unfolding", "cell_decoding")
    return LIIF("edsr-tiny", (12, 7), **dict(zip(names, switches, strict=False)), **more).double()


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plainly(of: LIIF, features: Tensor, at: Tensor, cells: Tensor) -> Tensor:
    asked = cells if of.cell_decoding else None
    return liif_plain(features, of.mlp, at, asked, of.local_ensemble, of.feature_unfolding) / 2 + 0.5


def grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    ys, xs = ((2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in (height, width))
    at = torch.stack(torch.meshgrid(ys, xs, indexing="ij"), dim=-1).flatten(0, 1)
    return at, torch.tensor([2 / height, 2 / width], dtype=torch.float64).expand_as(at)


@pytest.mark.parametrize("switches", SWITCHES)
def test_decode_is_the_plain_form(switches: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """x2, uneven fractions, a picture with one row, and smaller ones; with gradients, and in blocks without."""
    net = model(*switches)
    for size, (height, width) in {(5, 7): (10, 14), (6, 5): (13, 17), (1, 4): (4, 9), (8, 9): (5, 6)}.items():
        z = numbers(2, 32, *size)
        rows, columns = Span.whole(size[0], height), Span.whole(size[1], width)
        at, cells = grid(height, width)
        expected = torch.stack([plainly(net, one, at, cells).T.reshape(3, height, width) for one in z]).detach()
        torch.testing.assert_close(net.decode(z, rows, columns).detach(), expected, rtol=0, atol=1e-7)
        for block in (12 * 4, 12 * 100, 2**20):
            monkeypatch.setattr(liif, "_NUMBERS_CPU", block)
            with torch.no_grad():
                torch.testing.assert_close(net.decode(z, rows, columns), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("switches", SWITCHES)
def test_query_is_the_plain_form_with_its_gradients(switches: tuple[bool, ...]) -> None:
    """Tolerance: the 1e-9 that is added to areas in the plain form."""
    net, z = model(*switches), numbers(2, 32, 5, 7).requires_grad_()
    at = (numbers(2, 40, 2, seed=1).sigmoid() * 2 - 1) * 0.999
    cells, upstream = numbers(2, 40, 2, seed=2).exp() / 10, numbers(2, 40, 3, seed=3)
    wanted = [z, *net.mlp.parameters()]
    expected = torch.stack([plainly(net, *one) for one in zip(z, at, cells, strict=True)])
    made = net.query(z, at, cells)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-7)
    slopes = (torch.autograd.grad((rgb * upstream).sum(), wanted) for rgb in (made, expected))
    for one, other in zip(*slopes, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_gradients_flow_through_the_picture() -> None:
    """Oracle: the plain form's gradients of a decoded picture."""
    net, z = model(), numbers(1, 32, 4, 5).requires_grad_()
    at, cells = grid(9, 12)
    upstream = numbers(108, 3, seed=3)
    fast = net.decode(z, Span.whole(4, 9), Span.whole(5, 12))[0].flatten(1).T
    wanted = [z, *net.mlp.parameters()]
    slopes = [torch.autograd.grad((rgb * upstream).sum(), wanted) for rgb in (fast, plainly(net, z[0], at, cells))]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_the_whole_network_learns() -> None:
    """Oracle: every parameter has a gradient, with `added` too."""
    net = model(added=True)
    lr = numbers(2, 3, 6, 6).sigmoid()
    net.predict(lr, numbers(2, 9, 2).tanh(), torch.full((2, 9, 2), 0.1, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_memory_does_not_grow_with_the_rows_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the largest tensor is the result, the codes or one block, not the 4 H W rows of a layer."""
    monkeypatch.setattr(liif, "_NUMBERS_CPU", 2**14)
    net = LIIF("edsr-tiny", (64, 64))
    z, rows = torch.zeros(1, 32, 12, 12), Span.whole(12, 160)
    block = 2**14 * torch.get_num_threads()
    with torch.no_grad(), Largest() as watch:
        net.decode(z, rows, rows)
    assert watch.numbers <= max(3 * 160 * 160, block, 64 * 144)  # the layer's rows would be 4 * 160 * 160 * 64


def test_many_threads_do_not_take_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: two pieces of 16 MiB of float32, with 8 threads and with 64; two megabytes for a single one."""
    paper = LIIF("edsr-baseline")
    taken = {}
    for threads in (1, 2, 8, 64):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        taken[threads] = 4 * 256 * paper._most_rows(torch.device("cpu")) / 2**20
    assert taken == {1: 2, 2: 4, 8: 16, 64: 16}


def test_half_precision() -> None:
    """Oracle: the same network in float32; its dtype follows the picture's, places stay float32."""
    torch.manual_seed(0)
    net = LIIF("edsr-tiny", (32, 32), added=True).eval()
    lr = torch.rand(1, 3, 9, 8)
    at, cells = (part[None].float() for part in grid(30, 31))
    with torch.no_grad():
        exact, colours = net(lr, scale=3.7), net.predict(lr, at, cells)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, asked = net(lr, scale=3.7), net.predict(lr, at, cells)
        assert mixed.dtype == asked.dtype == torch.float32
        torch.testing.assert_close(mixed, exact, rtol=0, atol=0.01)
        torch.testing.assert_close(asked, colours, rtol=0, atol=0.01)
        for dtype, atol in ((torch.bfloat16, 0.02), (torch.float16, 0.003)):
            half = net.to(dtype)(lr.to(dtype), scale=3.7)
            assert half.dtype == dtype
            torch.testing.assert_close(half.float(), exact, rtol=0, atol=atol)
            net.float()


def test_coordinates_stay_fine_under_autocast() -> None:
    """Oracle: two places nearer to each other than half precision can tell still differ, by the float32 amount."""
    torch.manual_seed(0)
    net = LIIF("edsr-tiny", (32, 32)).eval()
    with torch.no_grad():
        for parameter in net.mlp.parameters():
            parameter.zero_()  # colours depend on the blend alone
        seen = {}
        z = torch.rand(1, 32, 4, 4)
        net.mlp[0].weight[:3, 4 * 9 : 7 * 9 : 9] = torch.eye(3)
        net.mlp[2].weight[:3, :3], net.mlp[4].weight[:, :3] = torch.eye(3), torch.eye(3)
        at = torch.tensor([[[0.1, 0.6], [0.1002, 0.6]]])
        for half in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                rgb = net.query(z, at, torch.full_like(at, 0.1))[0]
            seen[half] = rgb[1] - rgb[0]
    assert seen[False].abs().max() > 1e-5
    torch.testing.assert_close(seen[True], seen[False], rtol=0.1, atol=2e-6)


@pytest.mark.parametrize(("ensemble", "unfold", "cell"), SWITCHES)
def test_the_radius_is_the_one_that_is_seen(ensemble: bool, unfold: bool, cell: bool) -> None:
    """Oracle: where the gradient of single outputs ends; positive weights leave none of it out."""
    net = model(ensemble, unfold, cell)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    n = 2 * net.radius + 5
    lr = torch.full((3, n, 3), 0.7, dtype=torch.float64, requires_grad=True)
    rows, columns = Span.whole(n, 4 * n), Span.whole(3, 3)
    net(lr, size=(4 * n, 3))  # the whole is defined
    out = net.decode(net.features(lr), rows, columns)
    reach = 0
    for i in range(4 * (n // 2), 4 * (n // 2) + 4):
        (slope,) = torch.autograd.grad(out[0, :, i].sum(), lr, retain_graph=True)
        seen = slope.abs().sum((0, 2)).nonzero().flatten()
        reach = max(reach, n // 2 - int(seen.min()), int(seen.max()) - n // 2)
    assert reach == net.radius


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [((3, 5), 2.5, (8, 12)), ((50, 90), 2.3, (115, 207)), ((10, 12), 3.7, (37, 44)), ((45, 1), 1.4, (63, 1))],
)
def test_sizes_are_rounded_exactly(size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    """Oracle: by hand; 7.5 becomes 8 and 12.5 becomes 12, as Python rounds."""
    assert model().output_size(size, scale) == expected


def test_a_checkpoint_keeps_the_switches(tmp_path: Any) -> None:
    """Oracle: what the network was made with."""
    net = model(False, True, False, added=True).float()
    checkpoints.save(tmp_path / "net.safetensors", net)
    found = checkpoints.read(tmp_path / "net.safetensors")
    assert isinstance(found, LIIF)
    assert (found.encoder, found.hidden, found.added) == ("edsr-tiny", (12, 7), True)
    assert (found.local_ensemble, found.feature_unfolding, found.cell_decoding) == (False, True, False)
    lr = torch.rand(3, 5, 4)
    with torch.no_grad():
        assert torch.equal(found(lr, scale=2), net(lr, scale=2))


def test_the_papers_network_has_the_papers_size() -> None:
    """Oracle: the sheet's counts of encoder and decoder."""
    net = LIIF()
    assert sum(p.numel() for p in net.trunk.parameters()) == 1_220_416
    assert sum(p.numel() for p in net.mlp.parameters()) == 346_883


def test_errors_name_what_came() -> None:
    net = model()
    z = numbers(1, 32, 4, 5)
    with pytest.raises(ValueError, match=r"features must be \(B, 32, 4, 6\), got \(1, 32, 4, 5\)"):
        net.decode(z, Span.whole(4, 8), Span.whole(6, 12))
    with pytest.raises(ValueError, match=r"coordinates and cells must be \(1, Q, 2\), got \(2, 3, 2\) and \(2, 3, 2\)"):
        net.query(z, numbers(2, 3, 2), numbers(2, 3, 2))
    with pytest.raises(ValueError, match="hidden must name at least one width"):
        LIIF("edsr-tiny", ())
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        LIIF("edsr-tiny", (8, 0))
    with pytest.raises(ValueError, match="the piece must hold small pixels 1 to 3 for outputs 4 to 5, got 2 to 2"):
        net.decode(z[:, :, :1], Span.whole(4, 8).part(4, 6, 0), Span.whole(5, 10))
