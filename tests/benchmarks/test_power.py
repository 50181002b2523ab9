"""Meters on the real formats: RAPL and INA3221 files, tegrastats lines of several boards, NVML's calls."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.benchmarks.energy import EnergyResult, measure_energy
from edgekd.benchmarks.jetson_power import (
    Ina3221Meter,
    TegrastatsMeter,
    describe_total,
    parse_tegrastats,
    sum_rails,
)
from edgekd.benchmarks.latency import measure_latency
from edgekd.benchmarks.latency_tables import describe_missing_energy
from edgekd.benchmarks.nvml import NvmlMeter
from edgekd.benchmarks.power import PowerMeter, RaplMeter, find_meter
from edgekd.tables import NOT_MEASURED

FRAMES = [np.zeros((2, 2), np.uint8)]

# One line of each generation as the tool prints it (L4T 32 without units; R35, R36; R36 with a maximum).
NANO = (
    "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,1%@102,0%@102,0%@102] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@39C CPU@40.5C PMIC@100C GPU@41C AO@46C thermal@41C POM_5V_IN 900/943 POM_5V_GPU 0/0 "
    "POM_5V_CPU 123/123"
)
TX1 = (
    "RAM 1179/3983MB (lfb 120x4MB) IRAM 0/252kB(lfb 252kB) CPU [1%@102,4%@102,0%@102,0%@102] EMC_FREQ 7%@408 "
    "GR3D_FREQ 0%@76 APE 25 AO@42.5C CPU@37.5C GPU@39C Tdiode@42.75C VDD_IN 2532/2698 VDD_CPU 76/178 "
    "VDD_GPU 19/19"
)
XAVIER_NX = (
    "07-09-2024 13:31:31 RAM 3168/6851MB (lfb 2x4MB) SWAP 161/3426MB (cached 0MB) CPU [23%@1397,17%@1192,off,"
    "off,off,off] EMC_FREQ 2%@204 GR3D_FREQ 0%@[114] VIC_FREQ 115 APE 150 AUX@45C CPU@46.5C PMIC@50C "
    "VDD_IN 2763mW/2846mW VDD_CPU_GPU_CV 650mW/670mW VDD_SOC 650mW/711mW"
)
AGX_ORIN = (
    "RAM 9011/30536MB (lfb 6x4MB) CPU [100%@2201,100%@2201] EMC_FREQ 1%@2133 GR3D_FREQ 14%@[407,407] "
    "NVDLA0_FREQ @1600 APE 174 CV0@73.625C tj@77.281C VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW "
    "VIN_SYS_5V0 4968mW/5048mW VDDQ_VDD2_1V8AO 1091mW/1091mW"
)
ORIN_NANO = (
    "08-12-2026 15:28:04 RAM 2390/7486MB (lfb 4x4MB) CPU [6%@729,4%@729] GR3D_FREQ 0% cpu@45.687C/45.687C "
    "tj@46.843C/46.843C VDD_IN 3848mW/3848mW/3848mW VDD_CPU_GPU_CV 606mW/606mW/606mW "
    "VDD_SOC 1174mW/1174mW/1174mW"
)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.mark.parametrize(
    ("line", "rails", "total_w"),
    [
        (NANO, {"POM_5V_IN": 0.9, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.123}, 0.9),
        (TX1, {"VDD_IN": 2.532, "VDD_CPU": 0.076, "VDD_GPU": 0.019}, 2.532),
        (XAVIER_NX, {"VDD_IN": 2.763, "VDD_CPU_GPU_CV": 0.65, "VDD_SOC": 0.65}, 2.763),
        (ORIN_NANO, {"VDD_IN": 3.848, "VDD_CPU_GPU_CV": 0.606, "VDD_SOC": 1.174}, 3.848),
        (
            AGX_ORIN,
            {"VDD_GPU_SOC": 3.15, "VDD_CPU_CV": 14.312, "VIN_SYS_5V0": 4.968, "VDDQ_VDD2_1V8AO": 1.091},
            22.43,
        ),
    ],
)
def test_tegrastats_of_each_generation(line: str, rails: dict[str, float], total_w: float) -> None:
    assert parse_tegrastats(line) == rails
    assert parse_tegrastats(line + "\n") == rails
    assert sum_rails(rails) == pytest.approx(total_w)


def test_what_tegrastats_does_not_say_is_no_rail() -> None:
    assert parse_tegrastats("") == {}
    assert parse_tegrastats("RAM 613/3964MB SWAP 0/1982MB IRAM 0/252kB CPU [1%@102] GR3D_FREQ 0%") == {}
    assert describe_total(parse_tegrastats(NANO)) == "the input rail POM_5V_IN"
    assert describe_total(parse_tegrastats(AGX_ORIN)) == "the sum of VDD_CPU_CV, VDD_GPU_SOC, VIN_SYS_5V0"


def test_ina3221_rails_are_millivolts_times_milliamperes(tmp_path: Path) -> None:
    chips = tmp_path / "sys/class/hwmon"
    write(chips / "hwmon0/name", "cpu_thermal")
    write(chips / "hwmon3/name", "ina3221")
    for channel, (label, mv, ma) in enumerate(
        (("VDD_GPU_SOC", 843, 6170), ("VDD_CPU_CV", 780, 3437), ("VIN_SYS_5V0", 4968, 953)), start=1
    ):
        write(chips / f"hwmon3/in{channel}_label", label)
        write(chips / f"hwmon3/in{channel}_input", str(mv))
        write(chips / f"hwmon3/curr{channel}_input", str(ma))
    write(chips / "hwmon3/in7_label", "sum of shunt voltages")
    write(chips / "hwmon3/in7_input", "8")
    write(chips / "hwmon4/name", "ina3221")
    write(chips / "hwmon4/in1_label", "NC")
    write(chips / "hwmon4/in2_label", "VDDQ_VDD2_1V8AO")
    write(chips / "hwmon4/in2_input", "1800")
    write(chips / "hwmon4/curr2_input", "341")
    meter = find_meter(tmp_path, target="onnx", device="CPU")
    assert isinstance(meter, Ina3221Meter)
    rails = meter.read_power_w() or {}
    assert rails["VDD_GPU_SOC"] == pytest.approx(5.20131)
    assert set(rails) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}
    assert sum_rails(rails) == pytest.approx(5.20131 + 2.68086 + 4.734504)
    assert meter.read_energy_j() is None


def test_rapl_counts_packages_only_and_over_its_end(tmp_path: Path) -> None:
    zones = tmp_path / "sys/class/powercap"
    for zone, name, energy in (
        ("intel-rapl:0", "package-0", 262_143_000_000),
        ("intel-rapl:0:0", "core", 5),
        ("intel-rapl:1", "package-1", 1_000_000),
        ("intel-rapl:2", "psys", 9),
    ):
        write(zones / zone / "name", name)
        write(zones / zone / "energy_uj", str(energy))
        write(zones / zone / "max_energy_range_uj", "262143328850")
    meter = RaplMeter.find(tmp_path)
    assert meter is not None
    assert meter.covers == "2 processor packages"
    assert meter.read_energy_j() == 0.0
    write(zones / "intel-rapl:0/energy_uj", "671149")  # past the end: 328850 + 1 + 671149 - 0 µJ
    write(zones / "intel-rapl:1/energy_uj", "3500000")
    assert meter.read_energy_j() == pytest.approx(1.0 + 2.5, abs=1e-5)
    assert meter.read_energy_j() == pytest.approx(3.5, abs=1e-5)


def test_part_that_does_not_compute_is_not_metered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    opened: list[int] = []

    def find_board(index: int) -> str:
        opened.append(index)
        return f"board {index}"

    monkeypatch.setattr(NvmlMeter, "find", find_board)
    assert find_meter(tmp_path, target="onnx", device="CPU") is None
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    for name, text in (("name", "package-0"), ("energy_uj", "1"), ("max_energy_range_uj", "100")):
        write(zone / name, text)
    for target, device in (("onnx", "CPU"), ("openvino", "CPU"), ("openvino", "NPU"), ("null", "CPU")):
        assert isinstance(find_meter(tmp_path, target=target, device=device), RaplMeter)
    # OpenVINO's GPU is Intel's, whatever NVIDIA's driver shows.
    assert find_meter(tmp_path, target="openvino", device="GPU") is None
    assert find_meter(tmp_path, target="openvino", device="GPU.1") is None
    assert opened == []
    for target, device, index in (
        ("tensorrt", "GPU", 0),
        ("tensorrt-rtx", "GPU.1", 1),
        ("tensorrt", "gpu.12", 12),
        ("onnx", "GPU", 0),
    ):
        assert find_meter(tmp_path, target=target, device=device) == f"board {index}"
    assert opened == [0, 1, 12, 0]
    # Without its driver's answer the processor's packages do not stand for the GPU.
    monkeypatch.setattr(NvmlMeter, "find", lambda index: None)
    assert find_meter(tmp_path, target="tensorrt", device="GPU") is None


class FakeDriver:
    """The calls of both libraries, with the status and values of one GPU at each place of the PCI bus."""

    def __init__(
        self, energy_mj: int | None, power_mw: int | None, places: tuple[bytes, ...] = (b"1",)
    ) -> None:
        self.energy_mj, self.power_mw, self.places, self.closed = energy_mj, power_mw, places, False
        self.opened: list[bytes] = []

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0 if index < len(self.places) else 101

    def cuDeviceGetPCIBusId(self, text: Any, length: int, device: Any) -> int:  # noqa: N802
        text.value = self.places[device.value]
        return 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, place: bytes, device: Any) -> int:  # noqa: N802
        self.opened.append(place)
        return 0 if place in self.places else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, value: Any) -> int:  # noqa: N802
        return self._answer(self.energy_mj, value)

    def nvmlDeviceGetPowerUsage(self, device: Any, value: Any) -> int:  # noqa: N802
        return self._answer(self.power_mw, value)

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.closed = True
        return 0

    @staticmethod
    def _answer(known: int | None, value: Any) -> int:
        if known is None:
            return 3  # NVML_ERROR_NOT_SUPPORTED
        value._obj.value = known
        return 0


def test_nvml_counts_energy_or_reads_power() -> None:
    counting = NvmlMeter.find(load=lambda _: FakeDriver(energy_mj=12_500, power_mw=9))
    assert counting is not None
    assert (counting.read_energy_j(), counting.read_power_w()) == (12.5, None)
    reading = NvmlMeter.find(load=lambda _: FakeDriver(energy_mj=None, power_mw=61_250))
    assert reading is not None
    assert (reading.read_energy_j(), reading.read_power_w()) == (None, {"GPU": 61.25})
    reading.close()
    assert NvmlMeter.find(load=lambda _: FakeDriver(None, None)) is None
    assert NvmlMeter.find(load=lambda _: FakeDriver(1, 1, places=())) is None


def test_nvml_meters_the_gpu_that_the_engine_counts() -> None:
    # The two libraries number GPUs in different orders, so the place on the bus tells.
    driver = FakeDriver(energy_mj=1, power_mw=1, places=(b"0000:3B:00.0", b"0000:1A:00.0"))
    assert NvmlMeter.find(1, load=lambda _: driver) is not None
    assert driver.opened == [b"0000:1A:00.0"]
    assert NvmlMeter.find(2, load=lambda _: driver) is None


def test_machine_without_a_meter_says_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_meter(tmp_path, target="onnx", device="CPU") is None
    # A counter that only root may read is none.
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    write(zone / "name", "package-0")
    write(zone / "max_energy_range_uj", "262143328850")
    (zone / "energy_uj").mkdir()
    assert find_meter(tmp_path, target="onnx", device="CPU") is None
    result = measure_latency(Segmenter, FRAMES, min_queries=2, min_seconds=0, num_warmup=0)
    assert result.to_dict()["energy"] == NOT_MEASURED
    find = functools.partial(find_meter, tmp_path, target="onnx", device="CPU")
    result = measure_latency(
        Segmenter, FRAMES, min_queries=2, min_seconds=0, num_warmup=0, find_meter=find
    ).to_dict()
    assert result["energy"] == NOT_MEASURED
    assert describe_missing_energy({"results": [result]}) == (
        "energy of a frame: not measured, no meter here (INA3221, tegrastats, NVML, RAPL) tells it"
    )
    # An older file does not tell why.
    assert describe_missing_energy({"results": [{"energy": NOT_MEASURED}]}) == (
        "energy of a frame: not measured"
    )


def test_meter_that_is_there_and_tells_nothing_is_not_called_missing() -> None:
    def interrupt() -> PowerMeter:
        raise KeyboardInterrupt

    class Silent(CountingMeter):
        def read_energy_j(self) -> float | None:
            return None

        def read_power_w(self) -> Mapping[str, float] | None:
            return {}

    finders: dict[str, Callable[[], PowerMeter]] = {
        "Ctrl-C ended the run first": interrupt,
        "test gave 0 readings of power, at least 5 are needed": Silent,
        "the counter of test did not step, or ended": lambda: ScriptedMeter(5, 7, 7, 7),
    }
    for said, find in finders.items():
        result = measure_latency(
            Segmenter, FRAMES, min_queries=2, min_seconds=0, num_warmup=0, find_meter=find
        )
        missing = describe_missing_energy({"results": [result.to_dict()]})
        assert missing == f"energy of a frame: not measured, {said}"


def test_tegrastats_is_read_line_by_line_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "tegrastats"
    tool.write_text(
        f"#!{sys.executable}\nimport sys, time\nassert sys.argv[1:] == ['--interval', '100']\n"
        f"while True:\n    print({XAVIER_NX!r}, flush=True)\n    time.sleep(0.005)\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    meter = TegrastatsMeter.find()
    assert meter is not None
    assert meter.covers == "the input rail VDD_IN"
    result = measure_energy(Segmenter(0.002), FRAMES, meter, 0.4)
    meter.close()
    assert isinstance(result, EnergyResult)
    assert result.joules / result.seconds == pytest.approx(2.763)
    assert result.num_readings >= 5
    assert meter.read_power_w is not None
    tool.write_text(f"#!{sys.executable}\nprint('RAM 1/2MB')\n")
    assert TegrastatsMeter.find() is None


def test_tegrastats_runs_for_the_energy_alone_and_tells_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its power in mW is the time since the test began: what is read must be of the moment of the reading.
    tool, started, begin = tmp_path / "tegrastats", tmp_path / "started", time.time()
    tool.write_text(
        f"#!{sys.executable}\nimport pathlib, time\npathlib.Path({str(started)!r}).touch()\n"
        "while True:\n"
        f"    now = round(1000 * (time.time() - {begin!r}))\n"
        "    print(f'VDD_IN {now}mW/{now}mW', flush=True)\n    time.sleep(0.02)\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ran_before: list[bool] = []

    def find_power() -> TegrastatsMeter | None:
        ran_before.append(started.exists())
        return TegrastatsMeter.find()

    result = measure_latency(
        lambda: Segmenter(0.002), FRAMES, min_queries=5, min_seconds=0.6, num_warmup=0, find_meter=find_power
    )
    end = time.time() - begin
    assert ran_before == [False]
    assert isinstance(result.energy, EnergyResult)
    assert result.energy.idle_w is not None
    # Idle is the 0.6 s before the last loop of 0.6 s.
    assert end - 1.6 < result.energy.idle_w < end - 0.6
    assert end - 0.9 < result.energy.joules / result.energy.seconds < end


class Segmenter:
    """Takes a while for a frame."""

    stages: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def segment(self, frames: Any) -> Any:
        time.sleep(self.seconds)
        return frames

    def close(self) -> None:
        pass


class CountingMeter:
    """A device of 3 W at rest, and of 10 W as soon as it has been asked twice."""

    name, covers = "test", "all"

    def __init__(self) -> None:
        self.begin, self.joules, self.reads = time.perf_counter(), 0.0, 0

    def read_energy_j(self) -> float | None:
        now = time.perf_counter()
        self.joules += (3.0 if self.reads < 2 else 10.0) * (now - self.begin)
        self.begin, self.reads = now, self.reads + 1
        return self.joules

    def read_power_w(self) -> Mapping[str, float] | None:
        return None

    def close(self) -> None:
        pass


def test_energy_of_a_frame_and_its_part_above_idle() -> None:
    meter = CountingMeter()
    result = measure_energy(Segmenter(0.004), FRAMES, meter, 0.3)
    assert isinstance(result, EnergyResult)
    facts = result.to_dict()
    assert facts["idle_w"] == pytest.approx(3, rel=0.02)
    assert facts["mean_w"] == pytest.approx(10, rel=0.02)
    assert facts["joules_a_frame"] == pytest.approx(10 * facts["seconds"] / facts["num_frames"], rel=0.02)
    assert facts["joules_a_frame_above_idle"] == pytest.approx(0.7 * facts["joules_a_frame"], rel=0.05)
    json.dumps(facts, allow_nan=False)


def test_power_that_was_read_too_seldom_is_no_energy() -> None:
    class Silent(CountingMeter):
        def read_energy_j(self) -> float | None:
            return None

        def read_power_w(self) -> Mapping[str, float] | None:
            return {} if self.reads else {"VDD_IN": 5.0}

    assert isinstance(measure_energy(Segmenter(0.001), FRAMES, Silent(), 0.02), str)


class ScriptedMeter(CountingMeter):
    """A counter that is read four times: before and after the idle second and the loop."""

    def __init__(self, *joules: float) -> None:
        super().__init__()
        self.left = list(joules)

    def read_energy_j(self) -> float | None:
        return self.left.pop(0)


def test_counter_that_does_not_step_is_no_measurement() -> None:
    assert measure_energy(Segmenter(0.001), FRAMES, ScriptedMeter(5, 7, 7, 7), 0.01) == (
        "the counter of test did not step, or ended"
    )
    result = measure_energy(Segmenter(0.001), FRAMES, ScriptedMeter(5, 5, 5, 8), 0.01)
    assert isinstance(result, EnergyResult)
    assert result.joules == 3
    assert result.idle_w is None
    assert result.joules_a_frame_above_idle is None


def test_energy_is_part_of_a_latency_result() -> None:
    result = measure_latency(
        Segmenter, FRAMES, min_queries=5, min_seconds=0.05, num_warmup=0, find_meter=CountingMeter
    )
    assert isinstance(result.energy, EnergyResult)
    assert result.to_dict()["energy"]["source"] == "test"
