"""HTML by small functions that escape whatever is not HTML already."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

LONGEST_WORDS = 40


class Html(str):
    """Text that is HTML already and is not escaped again; only this module's functions make it."""


def escape(value: object) -> Html:
    """Return a value as HTML: unchanged if it is ``Html``, else its text with ``& < > " '`` replaced."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(children: Iterable[object], separator: str = "") -> Html:
    """Return the children one after the other, each escaped if it has to be."""
    return Html(separator.join(escape(child) for child in children))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """Return one element.

    Args:
        tag: its name, for example ``td``.
        children: ``Html`` or anything with a text; None is left out.
        attributes: name → value, escaped; ``_`` in a name stands for ``-`` and one at its end is dropped
            (``class_``); None leaves the attribute out.
    """
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{shown}>{join(child for child in children if child is not None)}</{tag}>")


def void(tag: str, **attributes: object) -> Html:
    """Return an element without content, such as ``img``."""
    return Html(element(tag, **attributes).removesuffix(f"</{tag}>"))


def build_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Html:
    """Return a table with caption and headings; the first column heads its row.

    It lies in a region of its own that scrolls sideways on a narrow screen and can be reached by keyboard.
    """
    kinds = [_find_kind([row[index] for row in rows]) for index in range(len(columns))]
    head = element(
        "tr",
        *(element("th", name, scope="col", class_=kind) for name, kind in zip(columns, kinds, strict=True)),
    )
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in rows
    ]
    table = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", table, class_="scroll", role="region", aria_label=caption, tabindex="0")


def _find_kind(cells: Sequence[object]) -> str:
    """Return the class of a column: numbers are aligned right, short words left, and long text may wrap."""
    texts = [re.sub(r"<[^>]*>", "", str(cell)) for cell in cells]
    if all(re.match(r"[-+]?\d|–|not measured|undefined|truth is empty", text) for text in texts):
        return "number"
    return "text" if any(len(text) > LONGEST_WORDS for text in texts) else "words"
