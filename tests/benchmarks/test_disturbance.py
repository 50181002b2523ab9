"""Neighbours, quotas and heat, as the kernel tells them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgekd.benchmarks.disturbance import find_disturbances, read_counters, subtract_counters
from edgekd.tables import NOT_MEASURED


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_counters_of_the_kernel(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    write(tmp_path, "proc/stat", f"cpu  {tick} {tick} {2 * tick} 99 7 0 {tick} {3 * tick} 0 0\ncpu0 1 2 3\n")
    write(tmp_path, "proc/pressure/cpu", "some avg10=1.0 avg60=1.0 avg300=1.0 total=2500000\nfull total=9\n")
    write(tmp_path, "sys/fs/cgroup/cpu.stat", "usage_usec 1\nnr_throttled 4\nthrottled_usec 750000\n")
    for core, count in enumerate((3, 4)):
        write(
            tmp_path, f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", f"{count}\n"
        )
    counters = read_counters(tmp_path)
    assert counters["busy_s"] == 5
    assert counters["steal_s"] == 3
    assert counters["pressure_s"] == 2.5
    assert counters["quota_s"] == 0.75
    assert counters["throttle_events"] == 7
    assert counters["process_cpu_s"] > 0


def test_counters_that_are_absent_are_left_out(tmp_path: Path) -> None:
    assert set(read_counters(tmp_path)) == {"wall_s", "process_cpu_s", "preemptions"}
    assert subtract_counters({"a": 1.0, "b": 2.0}, {"a": 4.5}) == {"a": 3.5}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, None),
        ({"before": {"load_average_1min": NOT_MEASURED}, "after": {"clock_mhz": NOT_MEASURED}}, None),
        ({"before": {"load_average_1min": 999.0}}, "busy machine"),
        ({"during": {"wall_s": 10.0, "busy_s": 1000.0, "process_cpu_s": 10.0}}, "busy neighbours"),
        ({"during": {"wall_s": 10.0, "busy_s": 10.0, "process_cpu_s": 10.0}}, None),
        ({"during": {"wall_s": 10.0, "steal_s": 900.0}}, "busy host"),
        ({"during": {"wall_s": 10.0, "quota_s": 0.5}}, "quota stopped it for 0.50 s"),
        ({"during": {"wall_s": 10.0, "throttle_events": 2.0}}, "lowered its clock 2 times"),
        ({"before": {"clock_mhz": 2000.0}, "after": {"clock_mhz": 1500.0}}, "from 2000 to 1500 MHz"),
        ({"before": {"clock_mhz": 2000.0}, "after": {"clock_mhz": 1900.0}}, None),
        ({"after": {"temperature_c": 91.0}}, "hot: 91"),
        ({"after": {"gpu_throttle_reasons": ["power cap"]}}, "the GPU says power cap"),
        ({"after": {"gpu_throttle_reasons": []}}, None),
    ],
)
def test_disturbances_are_named(conditions: dict[str, Any], expected: str | None) -> None:
    found = list(find_disturbances(conditions))
    if expected is None:
        assert found == []
    else:
        assert len(found) == 1
        assert expected in found[0]
