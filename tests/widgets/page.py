"""Reads the HTML that `show` writes as a browser would, without one."""

import base64
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"img", "input", "br"}


@dataclass
class Element:
    """One HTML element: its name, attributes and text."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """All elements in order; fails on an element that is closed wrongly or left open."""

    content: str
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.open: list[Element] = []
        self.feed(self.content)
        assert not self.open, f"left open: {[e.tag for e in self.open]}"

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {k: v or "" for k, v in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        for element in self.open:
            element.text += data

    def all(self, tag: str, **having: str) -> list[Element]:
        """The elements with this tag and these attributes."""
        found = [e for e in self.elements if e.tag == tag]
        return [e for e in found if all(e.attributes.get(k.replace("_", "-")) == v for k, v in having.items())]


def decoded(uri: str) -> np.ndarray:
    """The pixels of a data URI."""
    head, data = uri.split(",", 1)
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def assert_self_contained(content: str) -> None:
    """No script, no ids, no style sheets, no network, no address that changes between runs."""
    # a picture's base64 may spell anything by chance
    low = re.sub(r"data:image/[a-z+]+;base64,[\w+/=]+", "", content).lower()
    for forbidden in ("<script", "<style", "<link", "<iframe", "http:", "https:", "javascript:", "url(", "@import"):
        assert forbidden not in low, forbidden
    assert not re.search(r"\sid\s*=", low)
    assert not re.search(r"\b0x[0-9a-f]{6,}", low)
    for element in Page(content).elements:
        if "src" in element.attributes:
            assert element.attributes["src"].startswith("data:image/")
