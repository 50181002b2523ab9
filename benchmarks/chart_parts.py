"""The parts of every chart: a canvas, axes, labels, and one drawing for wide pages beside one for phones.

Charts are inline SVG drawn here, because the device side has no plotting library and the report must be
whole there too. Colours come from the page's style sheet, so that charts follow light and dark. A chart is
drawn twice, since the wide one shrunk to a phone would be unreadable; the page shows the one that fits.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

from edgekd.benchmarks.html import Html, element

LINE_HEIGHT = 18


@dataclasses.dataclass(frozen=True)
class Canvas:
    """Where a chart is drawn.

    Attributes:
        width: of the drawing, in its own units, which are pixels on the page it is made for.
        gutter: room left of the plot for labels; a narrow canvas has little and puts them above.
        right: room right of the plot.
    """

    width: int
    gutter: int
    right: int

    @property
    def is_narrow(self) -> bool:
        """Whether labels stand above what they name."""
        return self.width < 500

    @property
    def plot_width(self) -> int:
        """Width of the plot itself."""
        return self.width - self.gutter - self.right

    @property
    def label_height(self) -> int:
        """Height that a label takes above its row."""
        return LINE_HEIGHT if self.is_narrow else 0

    def draw_label(self, text: str, y: float, height: float) -> Html:
        """Draw the label of a row that begins at ``y`` and is ``height`` high without its label."""
        if self.is_narrow:
            return element("text", text, x=2, y=at(y + 13), class_="label")
        longest = self.gutter // 8
        shown = text if len(text) <= longest else text[: longest - 1] + "…"
        return element(
            "text", shown, x=self.gutter - 12, y=at(y + height / 2 + 4), class_="label", text_anchor="end"
        )


WIDE, NARROW = Canvas(760, 232, 40), Canvas(360, 10, 24)


@dataclasses.dataclass(frozen=True)
class LogScale:
    """A logarithmic axis from ``low`` at ``begin`` to ``high`` at ``end``, which may lie before it."""

    low: float
    high: float
    begin: float
    end: float

    def place(self, value: float) -> float:
        """Return where a value lies, those outside at the edge."""
        clipped = min(max(value, self.low), self.high)
        part = math.log(clipped / self.low) / math.log(self.high / self.low)
        return self.begin + part * (self.end - self.begin)

    def list_ticks(self, most: int = 8) -> list[float]:
        """Return round values on the axis: 1, 2, 5 of each decade, fewer where they would crowd."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,)):
            ticks = [step * 10.0**exponent for exponent in decades for step in steps]
            inside = [tick for tick in ticks if self.low <= tick <= self.high]
            if 2 <= len(inside) <= most:
                return inside
        return [self.low, self.high]


def at(value: float) -> str:
    """Return a coordinate with a tenth of a pixel."""
    return f"{value:.1f}"


def spread_range(values: Sequence[float], least: float = 1.25) -> tuple[float, float]:
    """Return a range around positive values with some room, at least the factor ``least`` wide."""
    low, high = min(values), max(values)
    low, high = max(low, 1e-6) * 0.94, max(high, 1e-6) * 1.06
    if high < low * least:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(least), middle * math.sqrt(least)
    return low, high


def draw_x_axis(
    places: Sequence[tuple[float, str]], top: float, bottom: float, middle: float = 0.0, caption: str = ""
) -> Html:
    """Draw upright grid lines with their values below, and what they are where there is a caption."""
    parts: list[Html] = []
    for x, text in places:
        parts.append(element("line", x1=at(x), x2=at(x), y1=at(top), y2=at(bottom), class_="grid"))
        parts.append(element("text", text, x=at(x), y=at(bottom + 16), class_="tick", text_anchor="middle"))
    if caption:
        place = {"x": at(middle), "y": at(bottom + 35)}
        parts.append(element("text", caption, **place, class_="axis-name", text_anchor="middle"))
    return element("g", *parts)


def draw_y_axis(places: Sequence[tuple[float, str]], left: float, right: float) -> Html:
    """Draw level grid lines with their values on them."""
    parts: list[Html] = []
    for y, text in places:
        parts.append(element("line", x1=at(left), x2=at(right), y1=at(y), y2=at(y), class_="grid"))
        parts.append(element("text", text, x=at(left), y=at(y - 4), class_="tick"))
    return element("g", *parts)


def draw_legend(names: Sequence[str], canvas: Canvas, start: int | None = None) -> tuple[Html, int]:
    """Draw a key of coloured patches in as many lines as needed; return it with its height."""
    parts: list[Html] = []
    left = (2 if canvas.is_narrow else canvas.gutter) if start is None else start
    x, y = left, 4
    for index, name in enumerate(names):
        width = 24 + 7 * len(name)
        if x > left and x + width > canvas.width:
            x, y = left, y + LINE_HEIGHT
        parts.append(element("rect", x=x, y=y, width=12, height=12, rx=3, class_=f"series-{index % 6}"))
        parts.append(element("text", name, x=x + 17, y=y + 10, class_="tick"))
        x += width
    return element("g", *parts), y + LINE_HEIGHT + 4


def spread_labels(wanted: Sequence[float], gap: float) -> list[float]:
    """Return places for labels in the order given, moved downwards until they are ``gap`` apart."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = list(wanted)
    for before, after in itertools.pairwise(order):
        places[after] = max(places[after], places[before] + gap)
    return places


def build_chart(draw: Callable[[Canvas], tuple[Sequence[Html], float]], description: str) -> Html:
    """Return a chart for wide pages and one for phones.

    Args:
        draw: returns the parts and the height for a canvas.
        description: what is seen, with its figures, for people who cannot see it.
    """
    drawings: list[Html] = []
    for canvas, name in ((WIDE, "wide"), (NARROW, "narrow")):
        parts, height = draw(canvas)
        box = f"0 0 {canvas.width} {math.ceil(height)}"
        drawings.append(
            element("svg", *parts, viewBox=box, role="img", aria_label=description, class_=f"chart {name}")
        )
    return element("div", *drawings)
