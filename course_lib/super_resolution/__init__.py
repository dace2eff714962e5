"""Super-resolution: the networks, and how their results are measured."""

from course_lib.super_resolution.crossnet import CrossNet
from course_lib.super_resolution.edsr import EDSR, EDSREncoder
from course_lib.super_resolution.encoders import make_encoder
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.luminance import enlarge_rgb
from course_lib.super_resolution.meta_sr import MetaSR
from course_lib.super_resolution.metrics import benchmark, enlarger, modcrop, network, pair, psnr, score, shave, ssim
from course_lib.super_resolution.rdn import RDN, RDNEncoder
from course_lib.super_resolution.san import SAN
from course_lib.super_resolution.second_order import SOCA, FirstOrder, covariance, newton_schulz
from course_lib.super_resolution.srntt import SRNTT
from course_lib.super_resolution.ttsr import TTSR

__all__ = [
    "EDSR",
    "ESPCN",
    "LIIF",
    "RDN",
    "SAN",
    "SOCA",
    "SRNTT",
    "TTSR",
    "CrossNet",
    "EDSREncoder",
    "FirstOrder",
    "MetaSR",
    "RDNEncoder",
    "benchmark",
    "covariance",
    "enlarge_rgb",
    "enlarger",
    "make_encoder",
    "modcrop",
    "network",
    "newton_schulz",
    "pair",
    "psnr",
    "score",
    "shave",
    "ssim",
]
