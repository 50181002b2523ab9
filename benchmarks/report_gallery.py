"""The pictures of a page. Views are flipped by radio buttons alone: the arrow keys move between them, screen
readers know them, and the page needs no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from edgekd.benchmarks.gallery import DIFFERENCE_COLOR, LayeredOverlay
from edgekd.benchmarks.html import Html, element, void
from edgekd.benchmarks.overlays import Color, Overlay


def build_gallery(overlays: Sequence[Overlay], legend: Sequence[tuple[str, Color]]) -> Html:
    """Return the section of pictures with the key of their colours."""
    entries = list(legend)
    layered = [one for one in overlays if isinstance(one, LayeredOverlay)]
    if any(layer.name == "difference" for one in layered for layer in one.layers):
        entries.append(("engine and student differ", DIFFERENCE_COLOR))
    key = element(
        "ul",
        *(
            element("li", element("span", style=f"background:rgb{color}", aria_hidden="true"), name)
            for name, color in entries
        ),
        class_="key",
    )
    figures = [
        _build_flip(one, index) if isinstance(one, LayeredOverlay) else _build_figure(one)
        for index, one in enumerate(overlays)
    ]
    hint = "Choose a view, or tab to a picture and flip with the arrow keys."
    return element(
        "section",
        element("h2", "Masks"),
        element("p", hint, class_="note") if layered else None,
        key if legend else None,
        element("div", *figures, class_="gallery"),
        id="masks",
    )


def _build_figure(overlay: Overlay) -> Html:
    return element("figure", _embed(overlay.png, "png", overlay.caption), element("figcaption", overlay.name))


def _build_flip(overlay: LayeredOverlay, index: int) -> Html:
    views = [*((layer.name, layer.caption) for layer in overlay.layers), ("frame", "The frame alone.")]
    controls: list[Html] = []
    says: list[Html] = []
    for place, (name, caption) in enumerate(views, start=1):
        identity = f"view-{index}-{place}"
        checked = "checked" if place == 1 else None
        controls.append(void("input", type="radio", name=f"view-{index}", id=identity, checked=checked))
        controls.append(element("label", name, for_=identity))
        says.append(element("p", caption, class_=f"say say-{place}"))
    layers = [
        _embed(layer.png, "png", layer.caption, class_=f"layer layer-{place}")
        for place, layer in enumerate(overlay.layers, start=1)
    ]
    base = _embed(overlay.frame_jpeg, "jpeg", "")
    stack = element("div", base, *layers, class_="stack")
    return element("fieldset", element("legend", overlay.name), *controls, stack, *says, class_="flip")


def _embed(data: bytes, kind: str, alt: str, class_: str | None = None) -> Html:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return void("img", src=source, alt=alt, class_=class_)
