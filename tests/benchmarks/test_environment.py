"""What a machine tells about itself, and what it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.benchmarks import describe_conditions, describe_environment
from edgekd.tables import NOT_MEASURED


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_facts_are_read_from_the_system(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "processor : 0\nmodel name\t: Some CPU @ 2 GHz\n")
    write(tmp_path, "proc/meminfo", "MemTotal:       8388608 kB\n")
    write(tmp_path, "etc/os-release", 'NAME=X\nPRETTY_NAME="Some OS 12"\n')
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq", "800000")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "3500000")
    write(tmp_path, "etc/nv_tegra_release", "# R36 (release), REVISION: 4.0\n")
    facts = describe_environment(tmp_path)
    assert facts["cpu"]["model"] == "Some CPU @ 2 GHz"
    assert facts["cpu"]["governor"] == "performance"
    assert facts["cpu"]["clock_range_mhz"] == [800, 3500]
    assert facts["memory_gib"] == 8.0
    assert facts["os"] == "Some OS 12"
    assert facts["jetson"]["release"].startswith("R36")
    assert facts["libraries"]["numpy"][0].isdigit()


def test_board_names_the_processor_where_cpuinfo_does_not(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "processor : 0\nBogoMIPS : 62.50\n")
    write(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano\0")
    assert describe_environment(tmp_path)["cpu"]["model"] == "NVIDIA Jetson Orin Nano"


def test_board_is_told_apart_where_its_kernel_names_the_same_cores(tmp_path: Path) -> None:
    boards = ("NVIDIA Jetson Orin Nano Developer Kit", "NVIDIA Jetson AGX Orin Developer Kit")
    for place, board in enumerate(boards):
        root = tmp_path / str(place)
        write(root, "proc/cpuinfo", "processor : 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n")
        write(root, "proc/device-tree/model", f"{board}\0")
        assert describe_environment(root)["cpu"]["model"] == board


def test_conditions_are_means_and_maxima(tmp_path: Path) -> None:
    write(tmp_path, "proc/loadavg", "0.75 0.5 0.25 1/100 12345\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "41500\n")
    write(tmp_path, "sys/class/thermal/thermal_zone1/temp", "63250\n")
    write(tmp_path, "sys/class/thermal/thermal_zone2/temp", "N/A\n")
    for core, khz in enumerate((1_000_000, 2_000_000)):
        write(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", str(khz))
    write(tmp_path, "sys/class/devfreq/17000000.gpu/cur_freq", "1300500000")
    facts = describe_conditions(tmp_path)
    assert facts["load_average_1min"] == 0.75
    assert facts["clock_mhz"] == 1500.0
    assert facts["temperature_c"] == 63.2
    assert facts["gpu_clock_mhz"] == 1300.5


def test_what_is_absent_is_not_measured_and_never_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(describe_conditions(tmp_path).values()) == {NOT_MEASURED}
    facts = describe_environment(tmp_path)
    assert facts["gpu"] == facts["jetson"] == facts["memory_gib"] == NOT_MEASURED
    assert facts["cpu"]["governor"] == facts["cpu"]["clock_range_mhz"] == NOT_MEASURED
    json.dumps(facts, allow_nan=False)


def test_gpu_and_power_mode_come_from_their_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, answer in (
        ("nvidia-smi", "Some GPU, 580.1, 8.7, 8192 MiB, 900 MHz, 1300 MHz, 25.00 W, 48"),
        ("nvpmodel", "NV Power Mode: MAXN\n0"),
    ):
        tool = tmp_path / name
        tool.write_text(f"#!{sys.executable}\nprint({answer!r})\n")
        tool.chmod(0o755)
    write(tmp_path, "etc/nv_tegra_release", "# R36 (release)\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = describe_environment(tmp_path)
    assert facts["gpu"]["name"] == "Some GPU"
    assert facts["gpu"]["temperature.gpu"] == "48"
    assert facts["jetson"]["power_mode"] == "NV Power Mode: MAXN 0"


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        ("1380, 61, 0x0000000000000001", []),
        ("900, 88, 0x0000000000000024", ["power cap", "software thermal slowdown"]),
        ("900, 88, [N/A]", NOT_MEASURED),
    ],
)
def test_gpu_says_why_its_clock_is_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, reasons: object
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!{sys.executable}\nprint({answer!r})\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = describe_conditions(tmp_path)
    assert facts["gpu_throttle_reasons"] == reasons
    assert facts["gpu_temperature_c"] == float(answer.split(", ")[1])


def test_importing_the_room_loads_no_torch_and_no_engine() -> None:
    code = (
        "import sys, edgekd.benchmarks;"
        "bad = {'torch', 'monai', 'onnx', 'onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx'};"
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
