"""Parity with the public (unofficial) DUpsampling code: outputs recorded from it, with seeded weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from course_lib.upsampling import DUpsampling, channel_order, fit_projection, label_windows, pixel_shuffle

GOLDEN = Path(__file__).parent / "golden" / "dupsampling.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def module(golden):
    """Return our module under the released tensor name: 12 features, 5 classes, r = 4."""
    module = DUpsampling(12, 5, 4)
    module.load_state_dict({"conv_w.weight": golden["conv_w.weight"]})
    return module


def features(width):
    return torch.rand((1, 12, 6, width), generator=torch.Generator().manual_seed(7))


def test_square(module, golden):
    with torch.no_grad():
        torch.testing.assert_close(module.conv_w(features(6)), golden["module_conv_w_out"], atol=1e-5, rtol=0)
        torch.testing.assert_close(module(features(6)), golden["module_square_out"], atol=1e-5, rtol=0)


def test_non_square(module, golden):
    """The recorded numbers in their right places; the code itself returns (1, 5, 36, 24) for these features."""
    with torch.no_grad():
        out = module(features(9))
    assert out.shape == (1, 5, 24, 36)
    torch.testing.assert_close(out, golden["module_nonsquare_correct"], atol=1e-5, rtol=0)


def test_pixel_shuffle_needs_other_channels(golden):
    """PyTorch's shuffle gives the same map after permuting the channels, and another one without."""
    vectors, expected = golden["module_conv_w_out"], golden["module_square_out"]
    assert torch.equal(pixel_shuffle(vectors[:, channel_order(5, 4)], 4), expected)
    assert not torch.allclose(pixel_shuffle(vectors, 4), expected, atol=0.1)


@pytest.mark.parametrize("k", [5, 10])
def test_projectors_of_the_toy_map(golden, k):
    """Oracle: projectors by NumPy's SVD of the toy map of five classes in windows of 4 x 4."""
    found = fit_projection(label_windows(golden["toy_label"], 4, 5), k)
    torch.testing.assert_close((found.up @ found.down).float(), golden[f"projector_uncentred_k{k}"], atol=1e-5, rtol=0)
