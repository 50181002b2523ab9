"""What differs between two reports beside their results: the list a change record needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.benchmarks.quantities import Column
from edgekd.tables import NOT_MEASURED, Table

_ENVIRONMENT = ("cpu", "gpu", "jetson", "memory_gib", "os", "kernel", "python")
_FACTS = ("version", "provider", "device", "threads", "precision_effective")


def list_changes(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return one row an item: ``item``, ``values`` (one a report) and whether they differ (``changed``).

    Identity, inputs and machine are always listed, libraries and engine facts where they differ.
    """
    described = [_describe_column(column) for column in columns]
    items = list(dict.fromkeys(item for one in described for item in one))
    rows = [{"item": item, "values": [one.get(item, "–") for one in described]} for item in items]
    for row in rows:
        row["changed"] = len(set(row["values"])) > 1
    return [row for row in rows if row["changed"] or not row["item"].startswith(("library ", "engine "))]


def find_device(column: Column) -> str:
    """Return what devices are told apart by: processor or board, and GPU, as far as known."""
    for _, content in column.contents:
        environment = content.get("environment", {})
        keys = ("cpu", "model"), ("gpu", "name")
        facts = [_read_fact(environment.get(part), key) for part, key in keys]
        return " ".join(fact for fact in facts if fact)
    return ""


def _read_fact(part: Any, key: str) -> str:
    value = part.get(key) if isinstance(part, Mapping) else part
    return "" if value in (None, NOT_MEASURED) else str(value)


def build_changes_table(names: Sequence[str], changes: Sequence[Mapping[str, Any]]) -> Table:
    """Return the change-control table: what was measured and on what, and whether it changed."""
    rows = tuple((row["item"], *row["values"], "changed" if row["changed"] else "same") for row in changes)
    return Table("Change control: what was measured and on what", ("Item", *names, "Changed"), rows)


def _describe_column(column: Column) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind, content in column.contents:
        found |= {
            "bundle": str(content.get("bundle", "–")),
            "manifest sha256": str(content.get("manifest_sha256", "–")),
        }
        if kind == "benchmark":
            found |= {
                "frames timed": str(content.get("frames", "–")),
                "frames sha256": str(content.get("frames_sha256", "–")),
            }
        else:
            found |= {"data of the gate": str(content.get("data") or "golden frames")}
            found |= {"data sha256": str(content.get("data_sha256") or "–")}
            found |= {"reference of the gate": str(content.get("reference", "–"))}
            found |= {"reference sha256": str(content.get("reference_sha256") or "–")}
        found |= _describe_environment(content.get("environment", {}))
        found |= _describe_engines(content)
        found[f"{kind} command"] = str(content.get("command", "–"))
    return found


def _describe_environment(environment: Mapping[str, Any]) -> dict[str, str]:
    libraries = environment.get("libraries", {})
    found = {"EdgeKD": str(libraries.get("edgekd", "–"))}
    for name in _ENVIRONMENT:
        value = environment.get(name, "–")
        parts = value if isinstance(value, Mapping) else {"": value}
        for key, part in parts.items():
            shown = " to ".join(map(str, part)) if isinstance(part, list) else str(part)
            found[f"{name} {key}".replace("_", " ").strip()] = shown
    found |= {f"library {name}": str(version) for name, version in libraries.items() if name != "edgekd"}
    found["measured at"] = str(environment.get("measured_at", "–"))
    return found


def _describe_engines(content: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"engine {result.get('name', '')} {key}": _format_fact(result["facts"][key])
        for result in content.get("results", ())
        if isinstance(result.get("facts"), Mapping)
        for key in _FACTS
        if key in result["facts"]
    }


def _format_fact(value: Any) -> str:
    return "left to the engine" if value is None else str(value)
