"""Pictures for the book: free photographs, synthetic test pictures, readers, and sets that are downloaded."""

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
    "PHOTOGRAPHS",
    "SHAPES",
    "DataMissing",
    "DownloadFailed",
    "ReferencePairs",
    "SRPairs",
    "Samples",
    "Scene",
    "Scenes",
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
    "read_picture",
    "read_samples",
    "related",
    "step_edge",
    "stripes",
    "to_uint8",
    "zone_plate",
]
