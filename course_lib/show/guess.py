"""The prediction that opens a chapter: the reader commits before anything is computed. Needs no kernel."""

from __future__ import annotations

import html
from collections.abc import Sequence

from .blocks import ACCENT, CARD, Block, inline, require_sentence

_LETTERS = "ABCDEF"

# One handler for all buttons: the pressed one is marked by sign and words, then the folded answer opens.
_ON_CLICK = (
    "var c=this.closest('.course-guess');"
    "c.querySelectorAll('button').forEach(function(b){b.setAttribute('aria-pressed','false');"
    "b.style.boxShadow='none';b.firstElementChild.textContent=b.dataset.letter});"
    "var ok=this.dataset.right=='1';this.setAttribute('aria-pressed','true');"
    "this.style.boxShadow='0 0 0 2px currentColor';this.firstElementChild.textContent=ok?'✓':'✗';"
    "c.querySelector('[role=status]').textContent=(ok?'✓ Right: ':'✗ You guessed ')+this.dataset.letter"
    "+(ok?'.':'. Read why it is another.');"
    "c.querySelector('details').open=true"
)


def guess(question: str, options: Sequence[str], answer: int, because: str) -> Block:
    """A question to be answered before the experiment, with the verdict and the reason once the reader has chosen.

    options: 2 to 6 different answers; answer: the index of the right one, from 0; because: why, one or two sentences.
    `code` and **bold** are understood in every text. Where inline handlers are dead (untrusted notebook, print), the
    options stay readable and the answer waits, folded, below them.
    Raises ValueError or TypeError that says what came and what was expected.
    """
    require_sentence(question, "question", "that ends in a choice")
    require_sentence(because, "because", "that gives the reason")
    if isinstance(options, str) or not 2 <= len(options) <= len(_LETTERS) or len(set(options)) != len(options):
        raise ValueError(f"options must be 2 to {len(_LETTERS)} different texts, got {options!r}")
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise TypeError(f"answer must be the index of the right option, got {answer!r}")
    if not 0 <= answer < len(options):
        raise ValueError(f"answer must be in 0..{len(options) - 1}, got {answer}")
    lettered = list(zip(_LETTERS, options, strict=False))
    buttons = "".join(_button(letter, text, k == answer) for k, (letter, text) in enumerate(lettered))
    right = f"{_LETTERS[answer]}: {options[answer]}"
    reason = because.strip().rstrip(".") + "."
    content = (
        f'<div class="course-guess" data-lm-suppress-shortcuts="true" data-prevent-swipe="true" '
        f'onkeydown="event.stopPropagation()" style="{CARD};max-width:46em;border-left:4px solid {ACCENT}">'
        f'<div style="margin-bottom:8px"><strong>Your guess.</strong> {inline(question)}</div>'
        f'<div role="group" aria-label="Possible answers">{buttons}</div>'
        f'<div role="status" style="min-height:1.45em;margin-top:6px;font-weight:600"></div>'
        f'<details><summary style="cursor:pointer">The answer (guess first)</summary>'
        f'<div style="margin-top:6px"><strong>{inline(right)}</strong>: {inline(reason)}</div></details></div>'
    )
    listed = "\n".join(f"  {letter}  {text}" for letter, text in lettered)
    return Block("text/html", content, f"Your guess. {question}\n{listed}\n(The answer: {right}: {reason})")


def _button(letter: str, text: str, right: bool) -> str:
    look = (
        "display:flex;gap:.7em;align-items:baseline;width:100%;margin:5px 0;padding:6px 12px;text-align:left;"
        "font:inherit;color:inherit;background:transparent;border:1px solid rgba(127,127,127,.5);"
        "border-radius:6px;cursor:pointer"
    )
    return (
        f'<button type="button" aria-pressed="false" data-letter="{letter}" data-right="{int(right)}" '
        f'onclick="{html.escape(_ON_CLICK)}" style="{look}">'
        f'<strong style="flex:none;width:1.1em">{letter}</strong> <span>{inline(text)}</span></button>'
    )
