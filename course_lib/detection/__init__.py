"""Object detection: boxes, anchors, matching, losses, suppression, measures, and families of networks.

Here are the parts that every detector needs; the networks are in `families`, and new pictures made of old ones in
`augmentation`.
"""

from course_lib.detection.anchors import MAPS, SSD300_VOC, SSD512_VOC, Level, anchors, ssd_levels
from course_lib.detection.assignment import Costs, SetTruth, hungarian, match_sets, matching_cost
from course_lib.detection.boxes import (
    area,
    clip,
    giou,
    iou,
    is_valid,
    to_cxcywh,
    to_normalised,
    to_pixels,
    to_xyxy,
)
from course_lib.detection.coding import VARIANCES, decode, encode
from course_lib.detection.losses import Targets, hard_negatives, multibox_loss, smooth_l1, targets
from course_lib.detection.matching import match
from course_lib.detection.metrics import (
    Truth,
    average_precision,
    coco_map,
    duplicates,
    match_detections,
    precision_recall,
    voc_map,
)
from course_lib.detection.nms import class_nms, nms
from course_lib.detection.prediction import (
    CAFFE,
    IMAGENET,
    PLAIN,
    Detections,
    Normalisation,
    pad,
    postprocess,
    preprocess,
)
from course_lib.detection.set_prediction import select

__all__ = [
    "CAFFE",
    "IMAGENET",
    "MAPS",
    "PLAIN",
    "SSD300_VOC",
    "SSD512_VOC",
    "VARIANCES",
    "Costs",
    "Detections",
    "Level",
    "Normalisation",
    "SetTruth",
    "Targets",
    "Truth",
    "anchors",
    "area",
    "average_precision",
    "class_nms",
    "clip",
    "coco_map",
    "decode",
    "duplicates",
    "encode",
    "giou",
    "hard_negatives",
    "hungarian",
    "iou",
    "is_valid",
    "match",
    "match_detections",
    "match_sets",
    "matching_cost",
    "multibox_loss",
    "nms",
    "pad",
    "postprocess",
    "precision_recall",
    "preprocess",
    "select",
    "smooth_l1",
    "ssd_levels",
    "targets",
    "to_cxcywh",
    "to_normalised",
    "to_pixels",
    "to_xyxy",
    "voc_map",
]
