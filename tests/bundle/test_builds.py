"""Builds are replaced in one step, and belong to one manifest."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from edgekd.bundle import Build, Bundle, draft_build, find_build, install_build, list_builds, write_build
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

    monkeypatch.setattr("edgekd.bundle.build_drafts.write_record", fail)
    with pytest.raises(KeyboardInterrupt):
        write_small(bundle, b"newer")
    assert find_build(bundle, "onnx").resolve_file("core.onnx").read_bytes() == b"graph"
    assert [path.name for path in (bundle.path / "builds").iterdir()] == ["onnx-fp32-cpu"]


@pytest.mark.parametrize("error", [PermissionError, KeyboardInterrupt])
def test_a_swap_that_fails_halfway_puts_the_old_build_back(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    write_small(bundle)
    rename = os.rename

    def fail_on_ready(source: Path, final: Path) -> None:
        if str(source).endswith(".ready"):
            raise error(source)
        rename(source, final)

    monkeypatch.setattr("os.rename", fail_on_ready)
    with pytest.raises(error):
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


def damage(build: Build) -> None:
    (build.path / "build.json").write_text("{")


def test_a_damaged_record_hinders_no_other_build(bundle: Bundle) -> None:
    good = write_small(bundle)
    damaged = write_small(bundle, b"gpu", device="GPU")
    damage(damaged)
    for stray in ("notes", "onnx-fp32-cpu.bak"):
        (bundle.path / "builds" / stray).mkdir()
    assert find_build(bundle, "onnx") == find_build(bundle, "onnx", device="CPU") == good
    assert list_builds(bundle, "openvino") == list_builds(bundle, "onnx", "int8") == []
    remedy = rf"remove the folder {damaged.path}, and make .* anew: edgekd export {bundle.path} --target onnx"
    with pytest.raises(IntegrityError, match=rf"build.json is not the file.*Next: {remedy} --precision fp32"):
        find_build(bundle, "onnx", device="GPU")
    with pytest.raises(MachineError, match="holds no onnx build in fp32 for NPU"):
        find_build(bundle, "onnx", device="NPU")


@pytest.mark.parametrize("stray", ["notes", "openvino-fp32-cpu"])
def test_a_folder_without_a_build_is_named_where_all_are_asked_for(bundle: Bundle, stray: str) -> None:
    write_small(bundle)
    folder = bundle.path / "builds" / stray
    folder.mkdir()
    with pytest.raises(IntegrityError, match=rf"Next: remove the folder {folder}, which holds no build"):
        list_builds(bundle)


def test_a_draft_goes_by_the_name_that_it_is_to_have(bundle: Bundle) -> None:
    facts = {"target": "onnx", "precision_asked": "fp32", "precision_effective": "fp32", "facts": {}}
    with draft_build(bundle, **facts, device="GPU.1", files={"core.onnx": b"graph"}) as draft:
        assert (draft.name, list_builds(bundle)) == ("onnx-fp32-gpu.1", [])
        assert draft.path.parent == bundle.path / "builds"
        asked = draft.record.model_copy(update={"device": "no:name"})
        assert dataclasses.replace(draft, record=asked).name == "onnx-fp32-gpu.1"
        build = install_build(bundle, draft, status="run")
    assert list_builds(bundle) == [build]
    assert (build.name, build.record.status) == ("onnx-fp32-gpu.1", "run")
    with draft_build(bundle, **facts, device="GPU.1", files={}):
        pass
    assert list_builds(bundle) == [build]


def test_a_build_under_another_name_is_refused(bundle: Bundle) -> None:
    build = write_small(bundle)
    copy = build.path.with_name("onnx-int8-cpu")
    shutil.copytree(build.path, copy)
    assert find_build(bundle, "onnx") == build
    with pytest.raises(IntegrityError, match=rf"{copy} holds the record of another build.*onnx-fp32-cpu"):
        find_build(bundle, "onnx", "int8")


@pytest.mark.parametrize("kind", ["damaged record", "no record", "of another bundle", "file", "link"])
def test_what_lies_in_a_builds_place_is_replaced_unread(bundle: Bundle, kind: str) -> None:
    build = write_small(bundle)
    if kind == "damaged record":
        damage(build)
    elif kind == "no record":
        (build.path / "build.json").unlink()
    elif kind == "of another bundle":
        other = dataclasses.replace(bundle, manifest_sha256="0" * 64)
        with pytest.raises(IntegrityError, match=rf"another bundle.*remove the folder {build.path}, and"):
            find_build(other, "onnx")
        bundle = other
    else:
        shutil.rmtree(build.path)
        build.path.write_text("") if kind == "file" else build.path.symlink_to("nowhere")
    newer = write_small(bundle, b"newer")
    assert list_builds(bundle) == [find_build(bundle, "onnx")] == [newer]
    assert newer.resolve_file("core.onnx").read_bytes() == b"newer"


def test_a_build_of_a_newer_schema_is_refused(bundle: Bundle) -> None:
    build = write_small(bundle)
    value = json.loads((build.path / "build.json").read_text())
    value["schema_version"] = 2
    write_sealed_bytes(build.path, "build.json", json.dumps(value).encode())
    with pytest.raises(IntegrityError, match=r"newer schema.*pip install .*; or remove the folder"):
        list_builds(bundle)


def test_a_device_that_would_leave_the_folder_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="device"):
        write_small(bundle, device="../../x")
    assert list_builds(bundle) == []
