"""Laws of Meta-SR: why the filters must know the scale, and what a render of a window has to be."""

from fractions import Fraction

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from course_lib.plain.meta_sr import meta_upscale_plain
from course_lib.super_resolution.any_scale import Span
from course_lib.super_resolution.meta_sr import MetaSR
from course_lib.super_resolution.meta_upscale import FilterNetwork, projection, residues, upscale

SCALES = st.fractions(min_value=1, max_value=5, max_denominator=12)
laws = settings(max_examples=25, deadline=None, derandomize=True)


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(seed):
    torch.manual_seed(seed)
    return FilterNetwork(2, 4).double()


@laws
@given(r=st.integers(1, 3), seed=st.integers(0, 99))
def test_without_the_scale_a_result_is_part_of_another(r, seed):
    """v of scale r at (i, j) is v of 2 r at (2 i, 2 j) but for 1 / r: a network blind to it cannot tell them apart.

    Pixel by pixel the difference is exactly 0; the fast form differs by rounding, because its products are other sizes.
    With the scale the two are different pictures.
    """
    features, blind = numbers(2, 3, 4, seed=seed), network(seed)
    seeing = network(seed)
    with torch.no_grad():
        blind.first.weight[:, 0] = 0
        for part in seeing.first.parameters():
            part.abs_()  # no ReLU hides what it sees
        small, large = (
            {net: meta_upscale_plain(features, net, Fraction(s), (3 * s, 4 * s)) for net in (blind, seeing)}
            for s in (r, 2 * r)
        )
        assert torch.equal(small[blind], large[blind][:, ::2, ::2])
        assert not torch.allclose(small[seeing], large[seeing][:, ::2, ::2], atol=1e-3)
        fast = [
            upscale(features[None], blind, *(Span.whole(n, n * s, Fraction(1, s)) for n in (3, 4))) for s in (r, 2 * r)
        ]
        torch.testing.assert_close(fast[0], fast[1][..., ::2, ::2], rtol=0, atol=1e-12)


@laws
@given(r=SCALES, n=st.integers(1, 40))
def test_the_pattern_repeats(r, n):
    """Output i + p lies q small pixels after output i, at the same offset; residues say how many a pixel owns."""
    index, offset = projection(n, int(r * n), r)
    p, q = r.as_integer_ratio()
    for i in range(len(index) - p):
        assert (index[i + p], offset[i + p]) == (index[i] + q, offset[i])
    owned = [index.count(small) for small in range(n)]
    for small in range(n - 1):
        assert owned[small] == len(residues(r)[small % q])


@laws
@given(r=SCALES, h=st.integers(1, 6), w=st.integers(1, 6), seed=st.integers(0, 99))
def test_forward_is_the_plain_form(r, h, w, seed):
    """Oracle: the equations pixel by pixel, whatever form is chosen."""
    features, net = numbers(1, 2, h, w, seed=seed), network(seed)
    size = int(r * h), int(r * w)
    rows, columns = (Span.whole(n, out, 1 / r) for n, out in zip((h, w), size, strict=True))
    expected = meta_upscale_plain(features[0], net, r, size)
    torch.testing.assert_close(upscale(features, net, rows, columns)[0], expected, rtol=0, atol=1e-12)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(r=SCALES, added=st.booleans(), data=st.data())
def test_a_rendered_window_is_part_of_forward(r, added, data):
    """A piece with `radius` pixels around the window is enough."""
    torch.manual_seed(0)
    model = MetaSR("edsr-tiny", hidden=3, mean_shift=False, added=added).double()
    lr = torch.rand(1, 3, 50, 5, dtype=torch.float64)
    rows, columns = model.spans((50, 5), scale=r)
    first = data.draw(st.integers(0, rows.n_out - 1))
    part = rows.part(first, data.draw(st.integers(first + 1, rows.n_out)), model.radius)
    with torch.no_grad():
        window = model.render(lr[..., part.origin : part.origin + part.have, :], part, columns)
        torch.testing.assert_close(window, model(lr, scale=r)[..., part.first : part.end, :], rtol=0, atol=1e-10)
