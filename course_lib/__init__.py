"""The library of the book: every technique in its fast form, each shown slowly in a chapter and tested equal."""

__version__ = "0.1.0"
