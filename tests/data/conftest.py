"""Small data sets on disk for the tests of the data room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[..., Path]


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded source of pixels."""
    return np.random.default_rng(7)


@pytest.fixture
def make_folder(tmp_path: Path, rng: np.random.Generator) -> MakeFolder:
    """A function that writes ``images/`` and ``masks/`` of random 40x48 images with a square as the truth."""

    def make(count: int = 4, name: str = "set") -> Path:
        root = tmp_path / name
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        for index in range(count):
            mask = np.zeros((40, 48), np.uint8)
            mask[10:20, 12 + index % 8 : 24] = 255
            Image.fromarray(rng.integers(0, 256, (40, 48), dtype=np.uint8)).save(
                root / f"images/c{index}.png"
            )
            Image.fromarray(mask).save(root / f"masks/c{index}.png")
        return root

    return make
