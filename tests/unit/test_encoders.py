"""The encoders by name. Oracles: counts by hand, and gradients for their radius."""

import math

import pytest
import torch

from course_lib.super_resolution.encoders import ENCODERS, make_encoder

COUNTS = {
    "edsr-baseline": 1_220_416,
    "edsr-tiny": 28 * 32 + (2 * 8 + 1) * (32 * 9 + 1) * 32,
    "rdn": 21_973_952,
    "rdn-tiny": (
        28 * 32 + 2 * (32 * 9 + 1) * 32 + 4 * (((32 + 48 + 64 + 80) * 9 + 4) * 16 + (96 + 1) * 32) + (4 * 32 + 1) * 32
    ),
}


def test_the_names() -> None:
    assert ENCODERS.keys() == COUNTS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_attributes(name: str) -> None:
    """Oracle: counted by hand, layer by layer; the two tiny ones are within 5 % of each other."""
    with torch.device("meta"):
        encoder = make_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == COUNTS[name]
    assert encoder.channels == (32 if name.endswith("tiny") else 64)
    assert encoder.radius == {"edsr-baseline": 34, "edsr-tiny": 18, "rdn": 131, "rdn-tiny": 19}[name]
    assert math.isclose(COUNTS["rdn-tiny"], COUNTS["edsr-tiny"], rel_tol=0.05)


@pytest.mark.parametrize("name", ["edsr-baseline", "edsr-tiny", "rdn-tiny"])
def test_the_radius_is_what_is_looked_at(name: str) -> None:
    """Oracle: gradients of all channels with positive weights: something at the radius, nothing beyond."""
    torch.manual_seed(0)
    encoder = make_encoder(name)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.abs_().mul_(0.05 if parameter.dim() > 1 else 0)
    radius = int(encoder.radius)
    x = torch.ones(1, 3, 2, 2 * radius + 7, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder(x)[..., 0, radius + 3].sum(), x)
    reached = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten().tolist()
    assert (reached[0], reached[-1]) == (3, 2 * radius + 3)


@pytest.mark.parametrize("name", ["edsr-baseline", "edsr-tiny", "rdn-tiny"])
@pytest.mark.parametrize("gradients", [False, True])
def test_features(name: str, gradients: bool) -> None:
    """Laws: one feature vector for each pixel, of a batch as of its pictures; made anew at each call."""
    encoder, x = make_encoder(name), torch.randn(2, 3, 7, 10)
    with torch.set_grad_enabled(gradients):
        features, again = encoder(x), encoder(x)
        assert features.shape == (2, encoder.channels, 7, 10)
        assert features.requires_grad is gradients
        assert features.data_ptr() != again.data_ptr()
        torch.testing.assert_close(features[1:], encoder(x[1:]), rtol=0, atol=1e-5, check_stride=False)
    assert not torch.equal(next(make_encoder(name).parameters()), next(encoder.parameters()))


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="encoder must be one of edsr-baseline, edsr-tiny, rdn, rdn-tiny; got 'edsr'"):
        make_encoder("edsr")
