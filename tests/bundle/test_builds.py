"""Builds are replaced in one step, and belong to one manifest."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from written_builds import write_build

from edgekd.bundle import Build, Bundle, draft_build, find_build, install_build, list_builds, replacement
from edgekd.bundle.files import write_sealed_bytes
from edgekd.errors import IntegrityError, MachineError, UsageError


def write_small(bundle: Bundle, content: bytes = b"graph", *, device: str = "CPU") -> Build:
    return write_build(
        bundle,
        target="onnx",
        precision_asked="fp32",
        precision_effective="fp32",
        device=device,
        status="built, not run",
        files={"core.onnx": content},
        facts={"difference": float("inf")},
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
    monkeypatch.setattr(replacement, "_exchange", lambda *_: False)
    rename = os.rename

    def fail_on_ready(source: Path, final: Path) -> None:
        if str(source).endswith(".ready"):
            raise error(source)
        rename(source, final)

    monkeypatch.setattr("os.rename", fail_on_ready)
    with pytest.raises(error):
        write_small(bundle, b"newer")
    assert find_build(bundle, "onnx").resolve_file("core.onnx").read_bytes() == b"graph"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two names")
def test_a_reader_finds_a_whole_build_whenever_others_replace_it(bundle: Bundle) -> None:
    contents = [b"one", b"other graph"]
    write_small(bundle, contents[0])
    with ThreadPoolExecutor(2) as writers:
        jobs = [writers.submit(write_small, bundle, contents[step % 2]) for step in range(40)]
        while not all(job.done() for job in jobs):
            try:
                find_build(bundle, "onnx").resolve_file("core.onnx")
            except MachineError as error:
                assert "replaced by another export" in str(error)
        for job in jobs:
            job.result()
    assert [path.name for path in (bundle.path / "builds").iterdir()] == ["onnx-fp32-cpu"]
    assert find_build(bundle, "onnx").resolve_file("core.onnx").read_bytes() in contents


def test_a_build_that_was_replaced_since_it_was_found_is_told(bundle: Bundle) -> None:
    found = write_small(bundle)
    write_small(bundle, b"newer")
    with pytest.raises(MachineError, match=r"was replaced by another export(.|\n)*run the command again"):
        found.resolve_file("core.onnx")


@pytest.mark.parametrize("age_s", [0, 2 * replacement.STALE_AFTER_S])
def test_what_a_killed_writer_left_goes_once_it_is_old(bundle: Bundle, age_s: int) -> None:
    write_small(bundle)
    left = bundle.path / "builds" / ".onnx-fp32-cpu.0bc8dd4b.ready"
    shutil.copytree(find_build(bundle, "onnx").path, left)
    os.utime(left, (time.time() - age_s,) * 2)
    write_small(bundle, b"newer")
    assert left.exists() == (age_s == 0)


@pytest.mark.parametrize("has_successor", [True, False])
def test_what_a_killed_writer_put_aside_is_put_back_where_nothing_took_its_place(
    bundle: Bundle, has_successor: bool
) -> None:
    build = write_small(bundle, b"old")
    aside = bundle.path / "builds" / ".onnx-fp32-cpu.old.k3j2"
    aside.mkdir()
    shutil.move(build.path, aside / build.path.name)
    if has_successor:
        write_small(bundle, b"newer")
    os.utime(aside, (time.time() - 2 * replacement.STALE_AFTER_S,) * 2)
    write_small(bundle, device="GPU")
    assert not aside.exists()
    found = find_build(bundle, "onnx", device="CPU").resolve_file("core.onnx").read_bytes()
    assert found == (b"newer" if has_successor else b"old")


def test_a_build_outside_the_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    build = write_small(bundle)
    shutil.move(build.path, tmp_path / "outside")
    build.path.symlink_to(tmp_path / "outside")
    with pytest.raises(IntegrityError, match="leads out of the bundle"):
        find_build(bundle, "onnx")
    write_small(bundle, b"newer")
    assert find_build(bundle, "onnx").resolve_file("core.onnx").read_bytes() == b"newer"
    assert not build.path.is_symlink() and (tmp_path / "outside").is_dir()


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
