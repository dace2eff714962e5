"""Upsampling: fixed kernels, `resize` and its forms (chapters 01-04), and learned kernels (chapters 05-07)."""

from course_lib.upsampling.conv_matrix import conv_matrix, conv_size, conv_transpose_size
from course_lib.upsampling.dupsampling import (
    AdaptiveTemperatureSoftmax,
    DUpsampling,
    Projection,
    fit_projection,
    label_windows,
    windows_to_image,
)
from course_lib.upsampling.grids import (
    Border,
    Grid,
    Rule,
    Scale,
    as_fraction,
    border_indices,
    nearest_indices,
    output_size,
    source_coordinates,
    split_coordinates,
)
from course_lib.upsampling.kernels import Kernel, box, cubic, tent
from course_lib.upsampling.pixel_shuffle import (
    Order,
    channel_order,
    icnr_,
    pixel_shuffle,
    pixel_unshuffle,
    subpixel_to_transposed,
    transposed_to_subpixel,
)
from course_lib.upsampling.polyphase import polyphase_downscale, polyphase_filters, polyphase_upscale
from course_lib.upsampling.resize import resize
from course_lib.upsampling.taps import Method, resize_matrix
from course_lib.upsampling.transposed import (
    bilinear_weight,
    conv_transpose_by_scatter,
    conv_transpose_by_zeros,
    insert_zeros,
    overlap_counts,
)

__all__ = [
    "AdaptiveTemperatureSoftmax",
    "Border",
    "DUpsampling",
    "Grid",
    "Kernel",
    "Method",
    "Order",
    "Projection",
    "Rule",
    "Scale",
    "as_fraction",
    "bilinear_weight",
    "border_indices",
    "box",
    "channel_order",
    "conv_matrix",
    "conv_size",
    "conv_transpose_by_scatter",
    "conv_transpose_by_zeros",
    "conv_transpose_size",
    "cubic",
    "fit_projection",
    "icnr_",
    "insert_zeros",
    "label_windows",
    "nearest_indices",
    "output_size",
    "overlap_counts",
    "pixel_shuffle",
    "pixel_unshuffle",
    "polyphase_downscale",
    "polyphase_filters",
    "polyphase_upscale",
    "resize",
    "resize_matrix",
    "source_coordinates",
    "split_coordinates",
    "subpixel_to_transposed",
    "tent",
    "transposed_to_subpixel",
    "windows_to_image",
]
