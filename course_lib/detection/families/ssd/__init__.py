"""SSD and its family: a body that makes maps, a neck that mixes them, heads that read them (chapters 14, 17 and 18)."""

from course_lib.detection.families.ssd.dsod import DenseBody, dsod300
from course_lib.detection.families.ssd.dssd import (
    DeconvolutionNeck,
    PredictionModule,
    PredictionNeck,
    dssd321,
    dssd513,
    ssd321_resnet101,
)
from course_lib.detection.families.ssd.fssd import (
    FusionNeck,
    fssd300,
    fssd300_pytorch_port,
    fssd512,
    fssd512_pytorch_port,
)
from course_lib.detection.families.ssd.heads import Heads
from course_lib.detection.families.ssd.l2norm import L2Norm
from course_lib.detection.families.ssd.rssd import RainbowNeck, rssd300
from course_lib.detection.families.ssd.ssd import SSD, Plain, caffe_ssd300, ssd300, ssd512
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.families.ssd.vgg_body import VGGBody

__all__ = [
    "SSD",
    "DeconvolutionNeck",
    "DenseBody",
    "FusionNeck",
    "Heads",
    "L2Norm",
    "Plain",
    "PredictionModule",
    "PredictionNeck",
    "RainbowNeck",
    "TinyDetector",
    "VGGBody",
    "caffe_ssd300",
    "dsod300",
    "dssd321",
    "dssd513",
    "fssd300",
    "fssd300_pytorch_port",
    "fssd512",
    "fssd512_pytorch_port",
    "rssd300",
    "ssd300",
    "ssd321_resnet101",
    "ssd512",
]
