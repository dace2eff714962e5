"""The command `course`: enlarge a picture, measure a model, time the library, fetch data."""

from course_lib.cli.app import app

__all__ = ["app"]
