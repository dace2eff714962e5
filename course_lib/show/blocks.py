"""Output blocks that every front end can show: a picture with its sentence, HTML, Markdown."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any, Final

from IPython.display import display

CARD: Final = (
    "box-sizing:border-box;border:1px solid rgba(127,127,127,.35);border-radius:8px;"
    "padding:12px 16px;margin:6px 0;line-height:1.45"
)
"""The frame around every interactive block; it inherits type and colours, so it fits slides and dark themes."""

ACCENT: Final = "#0072B2"
"""The one accent colour of controls."""


@dataclass(frozen=True)
class Block:
    """Something to display: a main form (`mime`) and the same said in plain text."""

    mime: str
    content: str
    plain: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {self.mime: self.content, "text/plain": self.plain}

    def __repr__(self) -> str:
        """The plain form."""
        return self.plain


def markdown(content: str) -> Block:
    """A block of Markdown (formulas allowed) that front ends without Markdown show as it is written."""
    return Block("text/markdown", content, content)


@dataclass(frozen=True)
class Png:
    """A PNG picture with its alternative text, which slides and book find in the output's metadata."""

    data: bytes
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.data, "text/plain": repr(self)}, {"image/png": {"alt": self.alt}}

    def __repr__(self) -> str:
        """The alternative text."""
        return f"[picture: {self.alt}]"


def show_png(data: bytes, sentence: str, alt: str) -> None:
    """Display PNG bytes and, under them, the sentence that says what they show."""
    display(Png(data, alt), markdown(f"↑ {sentence}"))  # type: ignore[no-untyped-call]


def require_sentence(text: str | None, argument: str, why: str) -> str:
    """The text, stripped; raises ValueError when it is missing."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{argument} must be a sentence {why}, got {text!r}")
    return text.strip()


def inline(text: str) -> str:
    """Escape text for HTML; `code` and **bold** keep their meaning."""
    escaped = html.escape(text)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)


def value_text(value: object) -> str:
    """How a parameter's value is written beside its slider: 3.4, 10, bicubic, on."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
