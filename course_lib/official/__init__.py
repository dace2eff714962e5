"""Official checkpoints in our models: read a released file safely, and load it strictly under the official names."""

from course_lib.official.adapters import Adapter, adapter, load, names
from course_lib.official.fitting import Misfit, fit
from course_lib.official.reading import UnreadableCheckpoint, contents, read, unwrap
from course_lib.official.recognise import candidates, recognise

__all__ = [
    "Adapter",
    "Misfit",
    "UnreadableCheckpoint",
    "adapter",
    "candidates",
    "contents",
    "fit",
    "load",
    "names",
    "read",
    "recognise",
    "unwrap",
]
