"""What `course bench sr` measures: each case is a function of ours beside rivals that do the same work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.plain.liif import liif_plain
from course_lib.plain.meta_sr import meta_upscale_chunked
from course_lib.super_resolution.any_scale import AnyScale, Span
from course_lib.super_resolution.encoders import make_encoder
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.meta_sr import MetaSR

QUERIES = 30_000


@dataclass(frozen=True)
class Case:
    """Functions that do the same work: "ours", and where there are any, "bare" and "plain".

    flops: multiplications and additions of what "bare" does, or of the network; None: not counted. whole: what memory
    is measured of in place of "ours", where time is measured of a part.
    """

    forms: dict[str, Callable[[], Any]]
    flops: float | None = None
    whole: Callable[[], Any] | None = None

    def for_memory(self, form: str) -> Callable[[], Any]:
        """Return the function whose memory counts."""
        return self.whole if form == "ours" and self.whole is not None else self.forms[form]


Make = Callable[[str, bool], Case]


def liif(n: int, m: int, rows: int) -> Make:
    """Return what makes the case of LIIF's decoder, n x n features to m x m colours; times: of so many rows."""

    def make(device: str, small: bool) -> Case:
        torch.manual_seed(0)
        side, large, part = (8, 8 * m // n, 8) if small else (n, m, rows)
        model = LIIF("edsr-baseline").eval().to(device)
        features, span = _features(model, side, device), Span.whole(side, large)
        window = replace(span, end=part)
        linear = [layer for layer in model.mlp if isinstance(layer, nn.Linear)]
        codes = side * max(1, side * part // large)
        flops = codes * linear[0].weight.numel() + 4 * part * large * sum(a.weight.numel() for a in linear[1:])
        forms = {
            "ours": lambda: model.decode(features, window, span),
            "bare": _products(features, linear, 4 * part * large, side * part // large),
            "plain": lambda: official_way(model, features, window, span),
        }
        return Case(forms, 2 * flops, lambda: model.decode(features, span, span))

    return make


def _products(features: Tensor, linear: list[nn.Linear], count: int, codes: int) -> Callable[[], None]:
    """Return LIIF's matrix products alone: the first layer at the small size, four rows per output through the rest."""
    width, channels = linear[0].out_features, features.shape[1]
    kernel = linear[0].weight.detach()[:, : 9 * channels].reshape(width, channels, 3, 3).contiguous()
    few = features[:, :, : max(1, codes)].contiguous(memory_format=torch.channels_last)
    block = min(1024 * torch.get_num_threads() if features.device.type == "cpu" else 2**17, count)
    rows = torch.randn(block, width, device=features.device)

    def bare() -> None:
        F.conv2d(few, kernel, padding=1)
        for first in range(0, count, block):
            x = rows[: count - first]
            for layer in linear[1:]:
                x = x @ layer.weight.T

    return bare


def official_way(model: LIIF, features: Tensor, rows: Span, columns: Span) -> Tensor:
    """Return the window (3, n, m) as the official code makes it: 30,000 places at once, codes unfolded for each."""
    axes = [
        ((2 * torch.arange(span.first, span.end) + 1) / span.n_out - 1).to(features.device) for span in (rows, columns)
    ]
    places = torch.cartesian_prod(*axes)
    cells = torch.tensor([2 / rows.n_out, 2 / columns.n_out], device=features.device).expand_as(places)
    parts = zip(torch.split(places, QUERIES), torch.split(cells, QUERIES), strict=True)
    said = torch.cat([liif_plain(features[0], model.mlp, *part) for part in parts])
    return said.T.reshape(3, rows.length, columns.length) / 2 + 0.5


def meta(r: Fraction, anew: bool = False) -> Make:
    """Return what makes the case of Meta-SR's decoder on 48 x 48 features; anew: filters are predicted each time."""

    def make(device: str, small: bool) -> Case:
        torch.manual_seed(0)
        side = 8 if small else 48
        model = MetaSR("edsr-tiny" if small else "edsr-baseline", mean_shift=False).eval().to(device)
        features = _features(model, side, device)
        rows, columns = model.spans((side, side), scale=r)
        size = rows.n_out, columns.n_out

        def ours() -> Tensor:
            if anew:
                model.filters.kept.forget()
            return model.decode(features, rows, columns)

        forms: dict[str, Callable[[], Any]] = {"ours": ours}
        if r == 2:
            kernel = torch.randn(12, features.shape[1], 3, 3, device=device)
            forms["bare"] = lambda: F.pixel_shuffle(F.conv2d(features, kernel, padding=1), 2)
        if not anew:
            forms["plain"] = lambda: meta_upscale_chunked(features[0], model.filters, r, size) / 2 + 0.5
        return Case(forms, 2 * size[0] * size[1] * 27 * features.shape[1])

    return make


def encoder(name: str) -> Make:
    """Return what makes the case of an encoder on 48 x 48 pixels; bare: its convolutions alone."""

    def make(device: str, small: bool) -> Case:
        torch.manual_seed(0)
        side = 8 if small else 48
        model = make_encoder({"edsr-baseline": "edsr-tiny", "rdn": "rdn-tiny"}[name] if small else name)
        model = model.eval().to(device)
        convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
        channels = {3, *(layer.in_channels for layer in convolutions)}
        given = {n: _random(n, side, device) for n in channels}

        def bare() -> None:
            for layer in convolutions:
                layer(given[layer.in_channels])

        flops = 2 * side**2 * sum(layer.weight.numel() for layer in convolutions)
        return Case({"ours": lambda: model(given[3]), "bare": bare}, flops)

    return make


CASES: dict[str, Make] = {
    "LIIF 64 -> 256": liif(64, 256, 256),
    "LIIF 48 -> 1440": liif(48, 1440, 48),
    "Meta-SR 48 x2": meta(Fraction(2)),
    "Meta-SR 48 x2, filters anew": meta(Fraction(2), anew=True),
    "Meta-SR 48 x3.4": meta(Fraction(17, 5)),
    "Meta-SR 48 x3.1415926": meta(Fraction("3.1415926")),
    "encoder edsr-baseline 48": encoder("edsr-baseline"),
    "encoder rdn 48": encoder("rdn"),
}


def _features(model: AnyScale, side: int, device: str) -> Tensor:
    return _random(int(model.trunk.channels), side, device)  # type: ignore[arg-type]


def _random(channels: int, side: int, device: str) -> Tensor:
    made = torch.randn(1, channels, side, side).to(device)
    return made.contiguous(memory_format=torch.channels_last)
