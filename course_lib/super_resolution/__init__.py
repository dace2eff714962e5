"""Super-resolution: the networks, and how their results are measured."""

from course_lib.super_resolution.edsr import EDSR, EDSREncoder
from course_lib.super_resolution.encoders import make_encoder
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.luminance import enlarge_rgb
from course_lib.super_resolution.meta_sr import MetaSR
from course_lib.super_resolution.metrics import benchmark, enlarger, modcrop, network, pair, psnr, score, shave, ssim
from course_lib.super_resolution.rdn import RDN, RDNEncoder
from course_lib.super_resolution.ttsr import TTSR

__all__ = [
    "EDSR",
    "ESPCN",
    "LIIF",
    "RDN",
    "TTSR",
    "EDSREncoder",
    "MetaSR",
    "RDNEncoder",
    "benchmark",
    "enlarge_rgb",
    "enlarger",
    "make_encoder",
    "modcrop",
    "network",
    "pair",
    "psnr",
    "score",
    "shave",
    "ssim",
]
