"""Instructions are those that Linux names, on either kind of processor, and none elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.processor import read_instructions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model name\t: X\nflags\t\t: fpu avx2 sse\n\nflags\t\t: fpu avx2\n", {"fpu", "avx2", "sse"}),
        ("BogoMIPS\t: 50\nFeatures\t: fp asimd\n", {"fp", "asimd"}),
        ("model name\t: flags\n", set()),
    ],
)
def test_instructions(tmp_path: Path, text: str, expected: set[str]) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert read_instructions(path) == expected
    assert read_instructions(tmp_path / "none") == frozenset()
