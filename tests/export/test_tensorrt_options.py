from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from edgekd.bundle import Bundle
from edgekd.errors import MachineError, UsageError
from edgekd.export import TensorRtOptions, export_bundle
from edgekd.export.tensorrt import list_kernel_architectures
from edgekd.export.tensorrt_engine import build_engine, format_command
from edgekd.export.tensorrt_network import ParsedNetwork, parse_network
from edgekd.export.tensorrt_options import BatchProfile, apply_options, check_options, choose_profile
from edgekd.export.tensorrt_progress import create_monitor, hold_interrupts
from edgekd.specs import PreprocessSpec

FREE, FIXED = (-1, 3, 8, 9), (1, 3, 8, 9)
SHAPES = {"min_shapes": "image:1x3x8x9", "opt_shapes": "image:4x3x8x9", "max_shapes": "image:8x3x8x9"}


def test_batch_is_one_by_default() -> None:
    options = TensorRtOptions()
    assert options.list_set() == [] and choose_profile(options, "image", FREE) == (1, 1, 1)
    check_options(options, ["onnx"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [(SHAPES, (1, 4, 8)), ({"opt_shapes": "image:2x3x8x9"}, (2, 2, 2))],
)
def test_shapes_make_a_profile(options: dict[str, str], expected: tuple[int, ...]) -> None:
    chosen = TensorRtOptions(**options)  # type: ignore[arg-type]
    check_options(chosen, ["onnx", "tensorrt"])
    assert choose_profile(chosen, "image", FREE) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opt_shapes": None}, r"needs its smallest.*received.*--min-shapes, --max-shapes"),
        ({"max_shapes": None}, "needs its smallest"),
        ({"max_shapes": "image"}, "no tensor shapes.*for example image:1x1x256x256"),
        ({"max_shapes": "image:8x3x8x"}, "no tensor shapes"),
        ({"max_shapes": "image:1x3x8x9,image:8x3x8x9"}, "no tensor shapes"),
        ({"workspace": 0}, "at least 1 MiB"),
        ({"hardware_compatible": "ampere"}, r"unknown hardware compatibility.*did you mean 'ampere\+'"),
    ],
)
def test_options_that_cannot_be_meant(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_options(TensorRtOptions(**{**SHAPES, **changes}), ["tensorrt"])


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, FIXED, r"the graph has other shapes.*image:1x3x8x9"),
        ({"max_shapes": "image:8x3x8x10"}, FREE, r"only its batch is free.*image:BATCHx3x8x9"),
        ({"max_shapes": "frame:8x3x8x9"}, FREE, "other shapes"),
        ({"max_shapes": "image:8x3x8x9,frame:1x2"}, FREE, "other shapes"),
        ({"max_shapes": "image:3x3x8x9"}, FREE, r"not in order.*usual 4, largest 3"),
        ({"min_shapes": "image:0x3x8x9"}, FREE, "not in order"),
    ],
)
def test_shapes_that_are_not_the_graphs(changes: dict[str, str], shape: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_profile(TensorRtOptions(**{**SHAPES, **changes}), "image", shape)  # type: ignore[arg-type]


def test_dla_is_refused_with_its_reason() -> None:
    with pytest.raises(MachineError, match=r"DLA.*argmax.*UINT8.*11\.4\.1") as caught:
        check_options(TensorRtOptions(dla_core=0), ["tensorrt"])
    assert caught.value.exit_code == 3


def test_options_without_tensorrt_are_refused() -> None:
    with pytest.raises(UsageError, match=r"TensorRT alone: received --workspace for onnx, openvino"):
        check_options(TensorRtOptions(workspace=5), ["onnx", "openvino"])


class FakeConfig:
    hardware_compatibility_level: Any = None

    def __init__(self) -> None:
        self.flags: list[str] = []

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)


def make_library(*levels: str) -> Any:
    """The parts of TensorRT that options are applied to."""
    return SimpleNamespace(
        __version__="10.3.0",
        BuilderFlag=SimpleNamespace(VERSION_COMPATIBLE="VERSION_COMPATIBLE"),
        HardwareCompatibilityLevel=SimpleNamespace(__members__={level: level for level in levels}),
    )


def test_compatibility_is_set_where_the_library_offers_it() -> None:
    config = FakeConfig()
    options = TensorRtOptions(version_compatible=True, hardware_compatible="ampere+")
    apply_options(options, make_library("NONE", "AMPERE_PLUS"), "tensorrt", config)
    assert config.flags == ["VERSION_COMPATIBLE"] and config.hardware_compatibility_level == "AMPERE_PLUS"


def test_level_that_the_version_lacks_is_refused() -> None:
    options = TensorRtOptions(hardware_compatible="sameComputeCapability")
    with pytest.raises(MachineError, match=r"10\.3\.0 does not offer.*none or ampere\+"):
        apply_options(options, make_library("NONE", "AMPERE_PLUS"), "tensorrt", FakeConfig())


@pytest.mark.parametrize("changes", [{"version_compatible": True}, {"hardware_compatible": "ampere+"}])
def test_rtx_has_no_compatibility(changes: dict[str, Any]) -> None:
    with pytest.raises(MachineError, match=r"TensorRT-RTX has no compatibility levels.*--sm"):
        apply_options(TensorRtOptions(**changes), make_library(), "tensorrt-rtx", FakeConfig())


def make_parsed(shape: tuple[int, ...]) -> ParsedNetwork:
    return ParsedNetwork(None, Path("engine.onnx"), None, None, None, None, "image", shape, False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "profile", "options", "expected"),
    [
        (FREE, (1, 1, 1), {}, "--shapes=image:1x3x8x9 --stronglyTyped"),
        (FIXED, (1, 1, 1), {}, "--noTF32 --stronglyTyped"),
        (
            FREE,
            (1, 4, 8),
            {"workspace": 64, "version_compatible": True, "hardware_compatible": "ampere+"},
            "--minShapes=image:1x3x8x9 --optShapes=image:4x3x8x9 --maxShapes=image:8x3x8x9 "
            "--memPoolSize=workspace:64M --versionCompatible --hardwareCompatibilityLevel=ampere+ "
            "--stronglyTyped",
        ),
    ],
)
def test_command_of_trtexec(shape: Any, profile: Any, options: Any, expected: str) -> None:
    command = format_command(
        make_parsed(shape), "tensorrt", BatchProfile(*profile), [87], TensorRtOptions(**options)
    )
    assert command.startswith("trtexec --onnx=engine.onnx --saveEngine=student.engine --noTF32 ")
    assert command.endswith(expected)


class FakeProgress:
    """Notes what would be drawn; interrupts at the step named."""

    def __init__(self, interrupt_at: int = -1) -> None:
        self.calls: list[Any] = []
        self.interrupt_at = interrupt_at

    def add(self, description: str, total: int) -> int:
        self.calls.append((description, total))
        return len(self.calls)

    def advance(self, handle: int, steps: int = 1, *, note: str | None = None) -> None:
        if steps and self.interrupt_at == 0:
            signal.raise_signal(signal.SIGINT)
        self.interrupt_at -= steps
        self.calls.append((handle, steps, note))


@pytest.fixture(scope="module")
def free_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="onnx is not installed")
    from engine_graphs import write_engine_graph

    return write_engine_graph(tmp_path_factory.mktemp("graph") / "engine.onnx")


def test_real_library_builds_with_the_options_and_tells_its_phases(free_graph: Path) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    options = TensorRtOptions("image:1x1x32x48", "image:2x1x32x48", "image:4x1x32x48", workspace=64)
    progress: Any = FakeProgress()
    engine = build_engine(
        parse_network(rtx, free_graph), "tensorrt-rtx", "fp32", [86], options=options, progress=progress
    )
    facts = engine.facts
    assert facts["batch"] == [1, 2, 4] and facts["inputs"] == {"image": [2, 1, 32, 48]}
    assert facts["workspace_mib"] == 64 and "--maxShapes=image:4x1x32x48" in facts["command"]
    description, total = progress.calls[0]
    drawn = sum(call[1] for call in progress.calls[1:] if call[0] == 1)
    assert description == "Building engine" and drawn == total > 1


def test_ctrl_c_stops_the_build_through_the_monitor(free_graph: Path) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    progress: Any = FakeProgress(interrupt_at=0)
    with pytest.raises(KeyboardInterrupt):
        build_engine(parse_network(rtx, free_graph), "tensorrt-rtx", "fp32", [86], progress=progress)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell's background jobs, and these tests with them, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_anywhere_in_the_build_marks_the_monitor_and_raises_nothing() -> None:
    progress: Any = FakeProgress()
    monitor = create_monitor(SimpleNamespace(IProgressMonitor=object), progress)
    with hold_interrupts(monitor):
        monitor.phase_start("outer", None, 2)
        assert monitor.step_complete("outer", 0) is True
        signal.raise_signal(signal.SIGINT)
        assert monitor.step_complete("outer", 1) is False and monitor.interrupted
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_preprocessing_is_compiled_for_all_gpus_of_a_compatible_engine() -> None:
    for options in (None, TensorRtOptions(), TensorRtOptions(hardware_compatible="sameComputeCapability")):
        assert list_kernel_architectures([89], options) == [89]
    assert list_kernel_architectures([89], TensorRtOptions(hardware_compatible="ampere+")) == [80, 89]


def test_monitor_keeps_to_the_outermost_phases() -> None:
    progress: Any = FakeProgress()
    monitor = create_monitor(SimpleNamespace(IProgressMonitor=object), progress)
    monitor.phase_start("outer", None, 2)
    monitor.phase_start("inner", "outer", 5)
    assert monitor.step_complete("inner", 0) and monitor.step_complete("outer", 0)
    monitor.phase_finish("inner")
    monitor.phase_finish("outer")
    assert progress.calls == [("outer", 2), (1, 0, "inner"), (1, 1, None), (1, 1, "")]


def test_command_line_hands_the_options_over(
    tmp_path: Path, new_student: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd import export
    from edgekd.cli import app

    seen: list[TensorRtOptions] = []

    def note_options(*_: Any, tensorrt: TensorRtOptions, **__: Any) -> list[Any]:
        seen.append(tensorrt)
        return []

    monkeypatch.setattr(export, "export_bundle", note_options)
    bundle = new_student(tmp_path / "tiny.edgekd", PreprocessSpec(height=8, width=8))
    shapes = ["--min-shapes", "a", "--opt-shapes", "b", "--max-shapes", "c"]
    others = [
        "--workspace",
        "5",
        "--version-compatible",
        "--hardware-compatible",
        "ampere+",
        "--dla-core",
        "0",
    ]
    result = CliRunner().invoke(app, ["export", str(bundle.path), "--target", "tensorrt", *shapes, *others])
    assert result.exit_code == 0, result.output
    assert seen == [TensorRtOptions("a", "b", "c", 5, True, "ampere+", 0)]


def test_export_checks_the_options_before_any_work(
    tmp_path: Path, new_student: Callable[..., Bundle]
) -> None:
    bundle = new_student(tmp_path / "tiny.edgekd", PreprocessSpec(height=8, width=8))
    with pytest.raises(UsageError, match="--workspace for onnx"):
        export_bundle(bundle, ["onnx"], tensorrt=TensorRtOptions(workspace=5))
