"""Upsampling by fixed kernels: grids, kernels, `resize` and its matrix and polyphase forms (chapters 01-04)."""

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
from course_lib.upsampling.polyphase import polyphase_downscale, polyphase_filters, polyphase_upscale
from course_lib.upsampling.resize import resize
from course_lib.upsampling.taps import Method, resize_matrix

__all__ = [
    "Border",
    "Grid",
    "Kernel",
    "Method",
    "Rule",
    "Scale",
    "as_fraction",
    "border_indices",
    "box",
    "cubic",
    "nearest_indices",
    "output_size",
    "polyphase_downscale",
    "polyphase_filters",
    "polyphase_upscale",
    "resize",
    "resize_matrix",
    "source_coordinates",
    "split_coordinates",
    "tent",
]
