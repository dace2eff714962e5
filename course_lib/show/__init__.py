"""Everything a chapter shows: still figures, sliders with and without a kernel, guesses, the reader's picture, tables.

    from course_lib import show

    show.style()
    x = show.your_picture(size=(64, 96))
    show.pictures({"input": x, "x4": y}, sentence="The same cat, and 16 times the pixels.")
    show.frames(render, scale=[1, 1.5, 2], watch="the whiskers", alt="cat, enlarged")  # a slider without a kernel
    show.live(render, scale=show.slider(1, 8, 0.1), watch="the whiskers", alt="cat, enlarged")  # Python at every move
    show.pointer(x, draw, watch="the four weights", alt="cat")  # draw(y, x) at the place one points at

Needs the extra `book` (matplotlib, ipywidgets, anywidget); the rest of the library does not.
"""

try:
    from .frames import Frames, frames
    from .guess import guess
    from .live import Live, Slider, live, slider
    from .picture import UnsuitablePicture, Upload, forget_picture, store_picture, upload, your_picture
    from .pointer import Pointer, pointer
    from .static import figure, matrix, pictures
    from .style import COLOURS, DASHES, MARKERS, style
    from .tables import appendix, book_map, chapter, sampler_table
except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    if package not in ("IPython", "anywidget", "cycler", "ipywidgets", "matplotlib", "traitlets"):
        raise
    message = f"course_lib.show needs {package}: pip install course_lib[book]"
    raise ModuleNotFoundError(message, name=error.name) from error

__all__ = [
    "COLOURS",
    "DASHES",
    "MARKERS",
    "Frames",
    "Live",
    "Pointer",
    "Slider",
    "UnsuitablePicture",
    "Upload",
    "appendix",
    "book_map",
    "chapter",
    "figure",
    "forget_picture",
    "frames",
    "guess",
    "live",
    "matrix",
    "pictures",
    "pointer",
    "sampler_table",
    "slider",
    "store_picture",
    "style",
    "upload",
    "your_picture",
]
