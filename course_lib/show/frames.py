"""Precomputed pictures behind one or two sliders, in HTML that needs no kernel, no script tag and no network."""

from __future__ import annotations

import base64
import html
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from .blocks import ACCENT, CARD, inline, require_sentence, value_text
from .pixels import SMALL_SIDE, Bytes3, Picture, encode, fewer_colours, is_small, to_bytes3

LIMIT: Final = 400_000
"""Bytes of HTML that one cell may hold: a notebook with ten of them still opens at once."""

_QUALITIES = (80, 70, 60)
# A slide is 1280 x 720: the picture leaves room for a title, the sliders and the sentence.
_WIDEST, _HIGHEST = 1100, 432

# Frames lie in row-major order: the index is the sum of slider position times stride.
_ON_INPUT = (
    "var c=this.closest('.course-frames'),k=0;"
    "c.querySelectorAll('input').forEach(function(i){k+=i.value*i.dataset.stride;"
    "var t=JSON.parse(i.dataset.texts)[i.value];i.nextElementSibling.textContent=t;i.setAttribute('aria-valuetext',t);"
    "c.querySelectorAll('[data-marker]').forEach(function(m){"
    "m.style[i.dataset.side]=JSON.parse(i.dataset.places)[i.value]+'%'})});"
    "c.querySelectorAll('[data-frame]').forEach(function(m){m.style.display=m.dataset.frame==k?'block':'none'})"
)


@dataclass(frozen=True)
class Axis:
    """One slider of precomputed values.

    places: for a slider that also moves a marker, its place at each value in per cent; side: "left" or "top".
    """

    name: str
    values: tuple[Any, ...]
    start: int
    places: tuple[float, ...] = ()
    side: str = ""

    @property
    def texts(self) -> list[str]:
        """Each value as it is written beside the slider."""
        return [value_text(value) for value in self.values]


@dataclass(frozen=True)
class Frames:
    """Pictures at every value of one or two sliders, ready to be displayed; `html` is the whole of it."""

    html: str
    axes: tuple[Axis, ...]
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": repr(self)}

    def __repr__(self) -> str:
        """What it is, in one line that never changes between runs."""
        sliders = ", ".join(f"{a.name} {a.texts[0]} to {a.texts[-1]} ({len(a.values)} values)" for a in self.axes)
        return f"[slider without a kernel: {sliders}. {self.alt}]"


def frames(
    render: Callable[..., Picture],
    *,
    watch: str,
    alt: str,
    start: Mapping[str, Any] | None = None,
    width: int | None = None,
    quality: int | None = None,
    **parameters: Sequence[Any],
) -> Frames:
    """Pictures precomputed at every value of one or two parameters; works in JupyterLab, on a slide and in the book.

    render(**values) -> picture: (C, H, W) or (H, W), floats in [0, 1] or uint8, or a matplotlib Figure (closed here).
    parameters: name=[values], one or two of them, at least two values each. start: {name: value} shown first (default:
    the first). watch: the sentence that says what to look for. alt: what the picture is, for those who cannot see it;
    the values are added. width: screen pixels (default: what fits a slide). quality: 1..100 of the WebP pictures
    (default: 80, less where needed); pictures up to 128 pixels a side are kept without loss.
    Raises TypeError or ValueError for bad arguments, and when the HTML would pass 400 KB.
    """
    require_sentence(watch, "watch", "that says what to look for")
    require_sentence(alt, "alt", "that says what the picture is")
    axes = _axes(parameters, start or {})
    grid = list(itertools.product(*(axis.values for axis in axes)))
    pictures: list[tuple[Bytes3, bool]] = []
    for values in grid:
        given = dict(zip(parameters, values, strict=True))
        picture = render(**given)
        where = ", ".join(f"{k}={v!r}" for k, v in given.items())
        pictures.append((to_bytes3(picture, f"render({where})"), isinstance(picture, Figure)))
    return assemble(axes, pictures, watch=watch, alt=alt, width=width, quality=quality)


def _axes(parameters: Mapping[str, Sequence[Any]], start: Mapping[str, Any]) -> tuple[Axis, ...]:
    if not 1 <= len(parameters) <= 2:
        raise ValueError(f"frames needs one or two parameters by keyword (scale=[...]), got {list(parameters)}")
    unknown = set(start) - set(parameters)
    if unknown:
        raise ValueError(f"start names {sorted(unknown)}, but the parameters are {list(parameters)}")
    axes = []
    for name, given in parameters.items():
        if isinstance(given, str):
            raise TypeError(f"{name} must be a list of values, got the text {given!r}")
        values = tuple(v.item() if hasattr(v, "item") else v for v in given)
        if len(values) < 2 or len(set(map(value_text, values))) != len(values):
            raise ValueError(f"{name} must list at least two values that read differently, got {values}")
        first = start.get(name, values[0])
        if first not in values:
            raise ValueError(f"start[{name!r}] must be one of {values}, got {first!r}")
        axes.append(Axis(name, values, values.index(first)))
    return tuple(axes)


def assemble(
    axes: Sequence[Axis],
    pictures: Sequence[tuple[Bytes3, bool]],
    *,
    watch: str,
    alt: str,
    width: int | None = None,
    quality: int | None = None,
    base: Bytes3 | None = None,
    remedy: str = "fewer values, a smaller picture, or quality=",
) -> Frames:
    """HTML from frames already drawn, in row-major order of the axes.

    pictures: (bytes, is it a drawing) each; drawings are compressed without loss where that is smaller.
    base: a picture that stays beside the frames with a marker that the axes move. Raises ValueError above `LIMIT`.
    """
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality must be in 1..100, got {quality}")
    strides = [1] if len(axes) == 1 else [len(axes[1].values), 1]
    first = sum(axis.start * stride for axis, stride in zip(axes, strides, strict=True))
    room = _WIDEST if base is None else _WIDEST - shown_width([(base, False)], None, _WIDEST // 2) - 24
    shown = shown_width(pictures, width, room)
    texts = [" , ".join(pair) for pair in itertools.product(*([f"{a.name} = {t}" for t in a.texts] for a in axes))]
    alts = [f"{alt.strip().rstrip('.')}: {text.replace(' , ', ', ')}" for text in texts]
    content = ""
    for level in (quality,) if quality is not None else _QUALITIES:
        images = "".join(
            _image(pixels, drawing, level, alts[k], k, k == first, shown)
            for k, (pixels, drawing) in enumerate(pictures)
        )
        content = _page(axes, strides, images, watch, shown, _marked_base(base, axes, alt))
        if len(content) <= LIMIT:
            return Frames(content, tuple(axes), alt.strip())
    raise ValueError(
        f"the pictures take {len(content) / 1000:.0f} KB of HTML ({len(pictures)} frames of "
        f"{pictures[0][0].shape[0]} x {pictures[0][0].shape[1]} pixels), the limit is {LIMIT // 1000} KB: take {remedy}"
    )


def shown_width(pictures: Sequence[tuple[Bytes3, bool]], width: int | None, room: int) -> int:
    """Screen width shared by all frames: a whole multiple of a small picture, never higher than a slide allows."""
    height, natural = max(((int(p.shape[0]), int(p.shape[1])) for p, _ in pictures), key=lambda shape: shape[1])
    wanted = width or natural * (max(1, 384 // max(height, natural)) if max(height, natural) <= SMALL_SIDE else 1)
    return max(1, min(wanted, room, _HIGHEST * natural // height))


def _image(pixels: Bytes3, drawing: bool, quality: int, alt: str, index: int, visible: bool, width: int) -> str:
    data = _smallest(pixels, drawing, quality)
    uri = "data:image/webp;base64," + base64.b64encode(data).decode()
    crisp = ";image-rendering:pixelated" if pixels.shape[1] < width else ""
    return (
        f'<img data-frame="{index}" alt="{html.escape(alt)}" width="{width}" src="{uri}" '
        f'style="display:{"block" if visible else "none"};max-width:100%;height:auto;margin:0{crisp}">'
    )


def _smallest(pixels: Bytes3, drawing: bool, quality: int) -> bytes:
    """WebP bytes: exact for small pictures, few flat colours for line drawings, else what takes least room."""
    if is_small(pixels):
        return encode(pixels, "WEBP", lossless=True, quality=60, method=4)
    lossy = encode(pixels, "WEBP", quality=quality, method=4)
    if not drawing:
        return lossy
    few = fewer_colours(pixels, 24)
    # A photograph inside a figure would turn into a poster: the mean error (in steps of 255) tells them apart.
    flat = few if np.abs(few.astype(np.int16) - pixels).mean() < 0.6 else pixels
    return min(lossy, encode(flat, "WEBP", lossless=True, quality=60, method=4), key=len)


def _marked_base(base: Bytes3 | None, axes: Sequence[Axis], alt: str) -> str:
    if base is None:
        return ""
    width = shown_width([(base, False)], None, _WIDEST // 2)
    exact = is_small(base)
    data = encode(base, "WEBP", lossless=True, method=4) if exact else encode(base, "WEBP", quality=85, method=4)
    place = ";".join(f"{axis.side}:{axis.places[axis.start]:g}%" for axis in axes)
    crisp = ";image-rendering:pixelated" if base.shape[1] < width else ""
    # The ring is black inside white, so that it is seen on any picture.
    return (
        f'<div style="position:relative;flex:none;width:{width}px;max-width:100%;align-self:flex-start">'
        f'<img alt="{html.escape(alt)}: where the point is" width="{width}" '
        f'src="data:image/webp;base64,{base64.b64encode(data).decode()}" '
        f'style="display:block;width:100%;height:auto;margin:0{crisp}">'
        f'<span data-marker="1" style="{_RING};{place}"></span></div>'
    )


_RING = (
    "position:absolute;width:14px;height:14px;margin:-7px 0 0 -7px;box-sizing:border-box;border:2px solid #000;"
    "border-radius:50%;box-shadow:0 0 0 2px #fff,inset 0 0 0 2px #fff"
)


def _page(axes: Sequence[Axis], strides: Sequence[int], images: str, watch: str, width: int, base: str) -> str:
    sliders = "".join(_slider(axis, stride) for axis, stride in zip(axes, strides, strict=True))
    body = f'<div style="min-width:0">{images}</div>'
    if base:
        body = f'<div style="display:flex;flex-wrap:wrap;gap:24px">{base}{body}</div>'
    card = f"{CARD};width:fit-content;max-width:100%;min-width:min(100%,{max(width + 34, 420)}px)"
    return (
        f'<div class="course-frames" data-lm-suppress-shortcuts="true" data-prevent-swipe="true" '
        f'onkeydown="event.stopPropagation()" style="{card}">'
        f'<div style="display:flex;flex-wrap:wrap;gap:4px 28px;margin-bottom:8px">{sliders}</div>'
        f'{body}<div style="margin-top:8px;max-width:{max(width, 420)}px">'
        f"<strong>Watch:</strong> {inline(watch)}</div></div>"
    )


def _slider(axis: Axis, stride: int) -> str:
    texts = axis.texts
    name = html.escape(axis.name.replace("_", " "))
    places = f' data-side="{axis.side}" data-places="{html.escape(json.dumps(axis.places))}"' if axis.places else ""
    wide = max(map(len, texts))
    return (
        f'<label style="display:flex;align-items:center;gap:10px;flex:1 1 260px;max-width:560px">'
        f'<span style="font-weight:600">{name}</span>'
        f'<input type="range" min="0" max="{len(texts) - 1}" step="1" value="{axis.start}" '
        f'aria-label="{name}" aria-valuetext="{html.escape(texts[axis.start])}" data-stride="{stride}" '
        f'data-texts="{html.escape(json.dumps(texts))}"{places} oninput="{html.escape(_ON_INPUT)}" '
        f'style="flex:1;min-width:120px;margin:0;accent-color:{ACCENT}">'
        f'<output style="min-width:{wide}ch;font-variant-numeric:tabular-nums">'
        f"{html.escape(texts[axis.start])}</output></label>"
    )
