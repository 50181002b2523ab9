"""Fixtures of training: the discs, and one thread."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric (extra train)")
pytest.importorskip("monai", reason="the teachers are MONAI's (extra train)")

# Networks are named ``odd_networks:…`` in configurations, so the folder must be importable.
sys.path.append(str(Path(__file__).parent / "support"))


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set. Read only."""
    from disc_runs import write_discs

    return write_discs(tmp_path_factory.mktemp("discs") / "data")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch on one thread, so that the order of sums is the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
