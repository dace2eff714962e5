"""Everything a chapter shows: still figures, sliders with and without a kernel, guesses, the reader's picture, tables.

from course_lib import show

show.style()
show.pictures({"input": x, "x4": y}, sentence="The same cat, and 16 times the pixels.")
show.frames(render, scale=[1, 1.5, 2], watch="the whiskers", alt="cat, enlarged")          # kernel-free slider
show.live(render, scale=show.slider(1, 8, 0.1), watch="the whiskers", alt="cat, enlarged")  # asks Python
"""

from .frames import Frames, frames
from .guess import guess
from .live import Live, Slider, live, slider
from .static import figure, matrix, pictures
from .style import COLOURS, DASHES, MARKERS, style

__all__ = [
    "COLOURS",
    "DASHES",
    "MARKERS",
    "Frames",
    "Live",
    "Slider",
    "figure",
    "frames",
    "guess",
    "live",
    "matrix",
    "pictures",
    "slider",
    "style",
]
