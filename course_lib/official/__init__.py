"""Official checkpoints in our models: read a released file safely, and load it strictly under the official names."""

from course_lib.official.adapters import Adapter, adapter, load, names
from course_lib.official.fitting import Misfit, fit
from course_lib.official.reading import UnreadableCheckpoint, read, unwrap

__all__ = ["Adapter", "Misfit", "UnreadableCheckpoint", "adapter", "fit", "load", "names", "read", "unwrap"]
