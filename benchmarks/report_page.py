"""The frame of every page: its template, style and contents, and the parts that pages share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

from edgekd.atomic import write_text_atomic
from edgekd.benchmarks.html import Html, build_table, element, escape, join
from edgekd.tables import Table

REPORT_FILE = "report.html"
DISCLAIMER = (
    "EdgeKD is not a medical device. It is research software: nothing on this page is meant for diagnosis "
    "or for treating a patient, and no authority has examined it."
)


def write_page(out: Path, title: str, lead: str, sections: Mapping[str, Html]) -> Path:
    """Write a page of named sections, each with the id of its name, and return its path."""
    here = Path(__file__).parent
    links = [
        element("li", element("a", name, href=f"#{name_id(name)}")) for name in sections if name != "Verdict"
    ]
    page = Template((here / REPORT_FILE).read_text()).substitute(
        title=escape(title),
        lead=escape(lead),
        style=(here / "report.css").read_text(),
        contents=element("nav", element("ul", *links), aria_label="Contents") if links else "",
        sections=join(sections.values(), "\n"),
        disclaimer=escape(DISCLAIMER),
    )
    path = out / REPORT_FILE
    write_text_atomic(path, page)
    return path


def name_id(name: str) -> str:
    """Return the id of a section of this name."""
    return name.lower().replace(" ", "-")


def build_section(name: str, *parts: Html | None) -> Html:
    """Return a section under a heading; a part that is None is left out."""
    return element("section", element("h2", name), *parts, id=name_id(name))


def show_table(table: Table, *, marked: bool = False) -> Html:
    """Return a table as HTML; ``marked`` sets off cells ending with ``worse``, ``better`` or ``changed``."""
    rows = [[_mark_cell(cell) for cell in row] for row in table.rows] if marked else table.rows
    return build_table(table.title, table.columns, rows)


def _mark_cell(cell: str) -> object:
    for word, mood in (("worse", "bad"), ("better", "good"), ("changed", "open")):
        if cell == word or cell.endswith(f" {word}"):
            return join([cell.removesuffix(word), element("span", word, class_=f"tag {mood}")])
    return cell
