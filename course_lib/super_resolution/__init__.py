"""Super-resolution: the networks, and how their results are measured."""

from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.luminance import enlarge_rgb
from course_lib.super_resolution.metrics import benchmark, modcrop, network, psnr, shave, ssim

__all__ = ["ESPCN", "benchmark", "enlarge_rgb", "modcrop", "network", "psnr", "shave", "ssim"]
