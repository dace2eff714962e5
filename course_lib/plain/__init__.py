"""The forms one sees through: shown in chapters, oracles in tests, never called by models."""

from course_lib.plain.resampling import W, resample_row, resize_plain, source_coordinate

__all__ = ["W", "resample_row", "resize_plain", "source_coordinate"]
