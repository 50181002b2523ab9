"""Builds are replaced in one step, and belong to one manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.bundle import Build, Bundle, find_build, list_builds, write_build
from edgekd.bundle.files import write_sealed_bytes
from edgekd.errors import IntegrityError, MachineError, UsageError


def write_small(
    bundle: Bundle, content: bytes = b"graph", *, device: str = "CPU", replace: bool = True
) -> Build:
    return write_build(
        bundle,
        target="onnx",
        precision_asked="fp32",
        precision_effective="fp32",
        device=device,
        status="built, not run",
        files={"core.onnx": content},
        facts={"difference": float("inf")},
        replace=replace,
    )


@pytest.fixture
def bundle(new_student, tmp_path: Path) -> Bundle:
    return new_student(tmp_path / "a.edgekd")


def test_what_is_written_is_found(bundle: Bundle) -> None:
    assert list_builds(bundle) == []
    build = write_small(bundle)
    assert build.name == "onnx-fp32-cpu"
    assert build.record.manifest_sha256 == bundle.manifest_sha256
    assert build.record.facts == {"difference": None}
    assert find_build(bundle, "onnx", "fp32", "cpu") == find_build(bundle, "onnx") == build
    assert build.resolve_file("core.onnx").read_bytes() == b"graph"


def test_writing_again_replaces_and_leaves_no_trace(bundle: Bundle) -> None:
    write_small(bundle)
    write_small(bundle, b"newer")
    assert [build.resolve_file("core.onnx").read_bytes() for build in list_builds(bundle)] == [b"newer"]
    assert [path.name for path in (bundle.path / "builds").iterdir()] == ["onnx-fp32-cpu"]
    with pytest.raises(UsageError, match="exists already"):
        write_small(bundle, replace=False)


def test_a_failed_write_keeps_the_old_build(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(bundle)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekd.bundle.builds.write_record", fail)
    with pytest.raises(KeyboardInterrupt):
        write_small(bundle, b"newer")
    assert find_build(bundle, "onnx").resolve_file("core.onnx").read_bytes() == b"graph"
    assert [path.name for path in (bundle.path / "builds").iterdir()] == ["onnx-fp32-cpu"]


def test_a_swap_that_fails_halfway_puts_the_old_build_back(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(bundle)
    from edgekd.bundle import builds

    rename = builds.os.rename

    def fail_on_ready(source: Path, final: Path) -> None:
        if str(source).endswith(".ready"):
            raise PermissionError(source)
        rename(source, final)

    monkeypatch.setattr("edgekd.bundle.builds.os.rename", fail_on_ready)
    with pytest.raises(PermissionError):
        write_small(bundle, b"newer")
    assert find_build(bundle, "onnx").resolve_file("core.onnx").read_bytes() == b"graph"


def test_builds_of_two_devices_stand_side_by_side(bundle: Bundle) -> None:
    write_small(bundle, b"cpu")
    write_small(bundle, b"gpu", device="GPU")
    assert find_build(bundle, "onnx", device="gpu").resolve_file("core.onnx").read_bytes() == b"gpu"
    assert find_build(bundle, "onnx").record.device == "CPU"


def test_a_missing_build_names_the_command(bundle: Bundle) -> None:
    with pytest.raises(MachineError, match=r"edgekd export .*a\.edgekd --target openvino --precision fp32"):
        find_build(bundle, "openvino")


def test_unknown_names_offer_the_nearest(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        find_build(bundle, "openvinno")
    with pytest.raises(UsageError, match="did you mean 'fp32'"):
        find_build(bundle, "onnx", "fp23")


def test_an_interrupted_folder_is_not_read(bundle: Bundle) -> None:
    (bundle.path / "builds" / ".onnx-fp32-cpu.abc").mkdir(parents=True)
    assert list_builds(bundle) == []


def test_a_build_of_a_newer_schema_is_refused(bundle: Bundle) -> None:
    build = write_small(bundle)
    value = json.loads((build.path / "build.json").read_text())
    value["schema_version"] = 2
    write_sealed_bytes(build.path, "build.json", json.dumps(value).encode())
    with pytest.raises(IntegrityError, match="newer schema"):
        list_builds(bundle)


def test_a_device_that_would_leave_the_folder_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="device"):
        write_small(bundle, device="../../x")
    assert list_builds(bundle) == []
