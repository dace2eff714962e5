"""The forms one sees through: shown in chapters, oracles in tests, never called by models."""

from course_lib.plain.attention import attention_loop, multi_head_loop, sine_loop
from course_lib.plain.convolution import convolve, convolve_transposed
from course_lib.plain.deformable import deformable_attention_grid_sample
from course_lib.plain.detection import (
    anchors_loop,
    average_precision_loop,
    iou_loop,
    match_loop,
    multibox_loop,
    nms_loop,
)
from course_lib.plain.liif import liif_plain
from course_lib.plain.ram import ram_attention_masked, ram_mask
from course_lib.plain.resampling import W, resample_row, resize_plain, source_coordinate
from course_lib.plain.san import (
    centring_matrix,
    covariance_by_matrix,
    eigen_sqrt,
    newton_schulz_loop,
    non_local_loop,
)
from course_lib.plain.sets import (
    focal_loss,
    giou_pair,
    match_brute_force,
    match_greedy,
    match_one_matrix,
    matching_cost_loop,
    set_losses_loop,
)
from course_lib.plain.shuffle import pixel_shuffle_plain, pixel_unshuffle_plain, source_channel
from course_lib.plain.vit import patches_loop, positions_loop, vit_block_loop
from course_lib.plain.windows import merge_loop, window_attention_masked, window_bias_loop

__all__ = [
    "W",
    "anchors_loop",
    "attention_loop",
    "average_precision_loop",
    "centring_matrix",
    "convolve",
    "convolve_transposed",
    "covariance_by_matrix",
    "deformable_attention_grid_sample",
    "eigen_sqrt",
    "focal_loss",
    "giou_pair",
    "iou_loop",
    "liif_plain",
    "match_brute_force",
    "match_greedy",
    "match_loop",
    "match_one_matrix",
    "matching_cost_loop",
    "merge_loop",
    "multi_head_loop",
    "multibox_loop",
    "newton_schulz_loop",
    "nms_loop",
    "non_local_loop",
    "patches_loop",
    "pixel_shuffle_plain",
    "pixel_unshuffle_plain",
    "positions_loop",
    "ram_attention_masked",
    "ram_mask",
    "resample_row",
    "resize_plain",
    "set_losses_loop",
    "sine_loop",
    "source_channel",
    "source_coordinate",
    "vit_block_loop",
    "window_attention_masked",
    "window_bias_loop",
]
