"""Every name that EdgeKD uses of TensorRT, against the API of each version it supports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edgekd.benchmarks.suites.tensorrt_api import (
    BY_NAME,
    LIBRARY,
    RECEIVERS,
    SOURCES,
    has_name,
    list_attributes,
    list_used_names,
)

FACTS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "tensorrt_api.json").read_text(encoding="utf-8")
)
# What `if target == "tensorrt-rtx"` in tensorrt_engine.py and tensorrt_plan.py keeps from TensorRT itself.
RTX_ONLY = {
    "ComputeCapability",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "IRuntimeCache.deserialize",
    "IRuntimeCache.serialize",
    "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.set_runtime_cache",
}
# `create_runtime_config` stands behind the same condition; `apply_options` looks for the level first.
GUARDED_IN_10_3 = {"ICudaEngine.create_runtime_config", "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"}
# Things of our own, or of Python, with attributes that are named like some of the library's.
OWN = (
    *("log", "self._log", "parsed", "self._runner", "self._cuda", "self._staging", "layer", "tensor"),
    *("found", "self", "read_golden(bundle).frames[0]"),
)


def test_table_is_of_these_sources() -> None:
    assert list_used_names() == FACTS["names"], (
        "make tests/data/tensorrt_api.json anew, see the top of benchmarks/suites/tensorrt_api.py"
    )
    assert len(FACTS["names"]) > 80


@pytest.mark.parametrize("wheel", sorted(FACTS["missing"]))
def test_version_has_every_name_that_is_used_there(wheel: str) -> None:
    expected: set[str] = set()
    if not wheel.startswith("tensorrt_rtx"):
        expected |= RTX_ONLY
    if "-10.3.0-" in wheel:
        expected |= GUARDED_IN_10_3
    assert set(FACTS["missing"][wheel]) == expected


@pytest.mark.parametrize(
    "version",
    ["bindings-10.3.0-", "bindings-10.13.", "bindings-11.0.", "bindings-11.4.", "rtx_cu13_bindings-1.7."],
)
def test_supported_versions_are_in_the_table(version: str) -> None:
    assert any(version in wheel for wheel in FACTS["missing"])


def test_planted_name_is_collected(tmp_path: Path) -> None:
    source = tmp_path / "tensorrt_engine.py"
    source.write_text("config.no_such_option = library.BuilderFlag.FP16\n")
    found = set(list_used_names([source]))
    assert {"IBuilderConfig.no_such_option", "BuilderFlag", "BuilderFlag.FP16"} <= found


def test_installed_library_is_as_the_table_says() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    assert [name for name in FACTS["names"] if not has_name(rtx, name)] == []
    assert not has_name(rtx, "BuilderFlag.FP16") and not has_name(rtx, "IBuilderConfig.no_such_option")


def test_no_use_of_the_library_goes_uncollected() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    interfaces = [one for name, one in vars(rtx).items() if re.match(r"I[A-Z]|Builder$|Runtime$", name)]
    members = {name for one in interfaces for name in vars(one) if name[0] != "_"}
    known = {expression for _, expression in RECEIVERS} | {*OWN}
    unknown = {
        f"{source.stem}: {expression}.{attribute}"
        for source in SOURCES
        for expression, attribute, _ in list_attributes(source)
        if attribute in members - {"name", "type"}
        and expression not in known
        and not any(expression == root or expression.startswith(f"{root}.") for root in LIBRARY)
    }
    assert unknown == set()


def test_names_compared_as_text_are_the_libraries() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    for owner, names in BY_NAME.items():
        assert [name for name in names if not hasattr(getattr(rtx, owner), name)] == []
