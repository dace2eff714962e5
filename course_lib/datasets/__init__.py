"""Pictures for the book: free photographs, synthetic test pictures, readers, and sets that are downloaded."""

from course_lib.datasets.annotations import Annotation, Labelled, read_coco, read_voc
from course_lib.datasets.bccd import BCCD
from course_lib.datasets.markup import UnreadableAnnotation
from course_lib.datasets.pairs import SRPairs
from course_lib.datasets.photographs import PHOTOGRAPHS, photograph
from course_lib.datasets.readers import Samples, UnreadablePicture, read_picture, read_samples
from course_lib.datasets.references import ReferencePairs, related
from course_lib.datasets.scenes import Scene, Scenes
from course_lib.datasets.sets import DataMissing, DownloadFailed, find, get, mirror, names, pictures
from course_lib.datasets.shapes import SHAPES
from course_lib.datasets.synthetic import checkerboard, ramp, step_edge, stripes, zone_plate
from course_lib.datasets.tensors import from_uint8, to_uint8

__all__ = [
    "BCCD",
    "PHOTOGRAPHS",
    "SHAPES",
    "Annotation",
    "DataMissing",
    "DownloadFailed",
    "Labelled",
    "ReferencePairs",
    "SRPairs",
    "Samples",
    "Scene",
    "Scenes",
    "UnreadableAnnotation",
    "UnreadablePicture",
    "checkerboard",
    "find",
    "from_uint8",
    "get",
    "mirror",
    "names",
    "photograph",
    "pictures",
    "ramp",
    "read_coco",
    "read_picture",
    "read_samples",
    "read_voc",
    "related",
    "step_edge",
    "stripes",
    "to_uint8",
    "zone_plate",
]
