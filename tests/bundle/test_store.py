"""A bundle is written whole, and nothing of it is read before it is what its record says."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.bundle import (
    Bundle,
    GoldenFrames,
    find_build,
    list_builds,
    load_golden,
    read_golden,
    write_bundle,
)
from edgekd.bundle.files import name_seal, write_sealed_bytes
from edgekd.errors import InputError, IntegrityError, MachineError, UsageError
from edgekd.specs import ClassSpec, ModelSpec, PreprocessSpec

SPEC = PreprocessSpec(height=4, width=6)
MODEL = ModelSpec(name="package:factory", in_channels=1, num_classes=2, parameters=1, macs=1)


def write_small(final: Path, **files: bytes) -> Bundle:
    return write_bundle(final, preprocess=SPEC, classes=ClassSpec(), model=MODEL, files=files)


def rewrite_manifest(bundle: Bundle, change: Callable[[dict], object]) -> None:
    """Change the manifest as someone who also renews its seal."""
    value = json.loads((bundle.path / "manifest.json").read_text())
    change(value)
    write_sealed_bytes(bundle.path, "manifest.json", json.dumps(value).encode())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "a.edgekd",
        preprocess=SPEC,
        classes=ClassSpec(),
        model=MODEL,
        files={"weights": b"abc", "deep/er": b""},
        metrics={"test": {"dice": 0.5, "miou": float("nan")}},
    )
    assert bundle.manifest.name == "a"
    assert bundle.manifest.metrics == {"test": {"dice": 0.5, "miou": None}}
    assert bundle.resolve_file("weights").read_bytes() == b"abc"
    assert Bundle.open(bundle.path) == bundle


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_the_seal_is_what_sha256sum_reads(tmp_path: Path) -> None:
    bundle = write_small(tmp_path / "a.edgekd")
    command = ["sha256sum", "--check", "--strict", "--quiet", "manifest.sha256"]
    assert subprocess.run(command, cwd=bundle.path, check=False).returncode == 0


def test_one_changed_byte_in_any_file_is_found_and_named(bundle_copy: Bundle) -> None:
    files = sorted(path for path in bundle_copy.path.rglob("*") if path.is_file())
    assert len(files) >= 8
    for path in files:
        original = path.read_bytes()
        path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        # A seal is broken as much as the file it seals, and that file is the one named.
        sealed = path.with_suffix(".json").name if path.suffix == ".sha256" else path.name
        with pytest.raises(IntegrityError, match=sealed.replace(".", r"\.")):
            read_everything(bundle_copy.path)
        path.write_bytes(original)
    read_everything(bundle_copy.path)


def read_everything(path: Path) -> None:
    bundle = Bundle.open(path)
    for build in list_builds(bundle):
        for name in build.record.files:
            build.resolve_file(name)


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    bundle = write_small(tmp_path / "a.edgekd", weights=b"abc")
    (bundle.path / "weights").unlink()
    with pytest.raises(IntegrityError, match="weights is missing"):
        Bundle.open(bundle.path)


def test_a_newer_schema_names_the_version_to_install(tmp_path: Path) -> None:
    bundle = write_small(tmp_path / "a.edgekd")
    rewrite_manifest(bundle, lambda value: value.update(schema_version=2, edgekd_version="9.1", novelty=1))
    with pytest.raises(IntegrityError, match=r"newer schema.*edgekd>=9\.1"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("version", [None, "1", 0, True, 1.0])
def test_a_schema_version_that_is_none(tmp_path: Path, version: object) -> None:
    bundle = write_small(tmp_path / "a.edgekd")
    rewrite_manifest(bundle, lambda value: value.update(schema_version=version))
    with pytest.raises(IntegrityError, match="no schema version"):
        Bundle.open(bundle.path)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    bundle = write_small(tmp_path / "a.edgekd")
    rewrite_manifest(bundle, lambda value: value.update(novelty=1))
    with pytest.raises(IntegrityError, match="novelty"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_refused(tmp_path: Path, data: bytes) -> None:
    bundle = write_small(tmp_path / "a.edgekd")
    write_sealed_bytes(bundle.path, "manifest.json", data)
    with pytest.raises(IntegrityError, match=r"manifest\.json is (damaged JSON|no JSON object)"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "a/../../outside", "a//b", "", ".", "a\\b", "c:x"]
)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"abc")
    bundle = write_small(tmp_path / "a.edgekd", weights=b"abc")
    rewrite_manifest(bundle, lambda value: value["files"].update({name: value["files"]["weights"]}))
    with pytest.raises(IntegrityError, match="no plain relative path"):
        Bundle.open(bundle.path)
    with pytest.raises(ValueError, match="no plain relative path"):
        write_small(tmp_path / "b.edgekd", **{name: b"abc"})
    assert not (tmp_path / "b.edgekd").exists()


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"abc")
    bundle = write_small(tmp_path / "a.edgekd", weights=b"abc")
    (bundle.path / "weights").unlink()
    (bundle.path / "weights").symlink_to(tmp_path / "outside")
    with pytest.raises(IntegrityError, match="leads out of the folder"):
        Bundle.open(bundle.path)


def test_a_link_to_the_whole_bundle_opens(tmp_path: Path) -> None:
    bundle = write_small(tmp_path / "a.edgekd", weights=b"abc")
    (tmp_path / "link").symlink_to(bundle.path)
    assert Bundle.open(tmp_path / "link").manifest_sha256 == bundle.manifest_sha256


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    bundle = write_small(tmp_path / "a.edgekd", weights=b"abc")
    with pytest.raises(UsageError, match="exists already"):
        write_small(tmp_path / "a.edgekd", weights=b"new")
    assert bundle.resolve_file("weights").read_bytes() == b"abc"


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for path, found in (
        (tmp_path / "none", "nothing there"),
        (tmp_path / "file", "a file"),
        (tmp_path, "without"),
    ):
        with pytest.raises(InputError, match=found):
            Bundle.open(path)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekd.bundle.store.write_record", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_small(tmp_path / "a.edgekd", weights=b"abc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_full(handle: int, mode: str) -> object:
        os.close(handle)
        return open("/dev/full", mode)

    monkeypatch.setattr("edgekd.atomic.os.fdopen", open_full)
    with pytest.raises(MachineError, match="disk is full"):
        write_small(tmp_path / "a.edgekd", weights=b"abc")
    assert list(tmp_path.iterdir()) == []


def test_manifest_facts_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 classes, 3 are named"):
        write_bundle(
            tmp_path / "a.edgekd",
            preprocess=SPEC,
            classes=ClassSpec(names=("background", "cyst", "tumour")),
            model=MODEL,
            files={},
        )


def test_golden_frames_are_read_back(student_bundle: Bundle) -> None:
    golden = read_golden(student_bundle)
    again = load_golden(student_bundle.resolve_file("golden.npz"))
    assert len(golden) == len(again) == 3
    assert len({frame.shape for frame in golden.frames}) == 3
    assert golden.to_bytes() == again.to_bytes()
    assert (golden.masks == golden.logits.argmax(axis=1)).all()


def test_golden_frames_without_pickle(tmp_path: Path, student_bundle: Bundle) -> None:
    path = tmp_path / "golden.npz"
    path.write_bytes(pickle.dumps({"frame_0": 1}))
    with pytest.raises(IntegrityError, match="without pickle"):
        load_golden(path)
    golden = read_golden(student_bundle)
    objects = GoldenFrames((golden.frames[0].astype(object),), *(part[:1] for part in list_parts(golden)))
    with pytest.raises(ValueError, match="Python objects"):
        objects.to_bytes()


def test_incomplete_golden_frames_are_refused(tmp_path: Path, student_bundle: Bundle) -> None:
    golden = read_golden(student_bundle)
    path = tmp_path / "golden.npz"
    path.write_bytes(GoldenFrames((), *(part[:0] for part in list_parts(golden))).to_bytes())
    with pytest.raises(IntegrityError, match="no complete golden frames"):
        load_golden(path)
    path.write_bytes(golden.to_bytes()[:-40])
    with pytest.raises(IntegrityError, match="no readable array file"):
        load_golden(path)


def test_golden_frames_of_another_student_are_refused(student_bundle: Bundle, tmp_path: Path) -> None:
    facts = student_bundle.manifest
    golden = student_bundle.resolve_file("golden.npz")
    for spec in (
        PreprocessSpec(height=32, width=64),
        PreprocessSpec(height=32, width=48, frame_dtype="uint16"),
    ):
        other = write_bundle(
            tmp_path / f"{spec.compute_hash()}.edgekd",
            preprocess=spec,
            classes=facts.classes,
            model=facts.model,
            files={"golden.npz": golden},
        )
        with pytest.raises(IntegrityError, match="does not fit the manifest"):
            read_golden(other)


def list_parts(golden: GoldenFrames) -> list:
    return [golden.tensors, golden.logits, golden.masks, golden.truths]


def test_a_build_of_another_bundle_is_refused(bundle_copy: Bundle) -> None:
    value = json.loads((bundle_copy.path / "manifest.json").read_text())
    value["name"] = "another"
    write_sealed_bytes(bundle_copy.path, "manifest.json", json.dumps(value).encode())
    with pytest.raises(IntegrityError, match="belongs to another bundle"):
        find_build(Bundle.open(bundle_copy.path), "onnx")


def test_the_seal_is_named_after_its_file() -> None:
    assert name_seal("manifest.json") == "manifest.sha256"


def test_the_folder_around_a_bundle_names_it(student_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"NAME\.edgekd"):
        Bundle.open(tmp_path)
    shutil.copytree(student_bundle.path, tmp_path / "student.edgekd")
    with pytest.raises(InputError, match=rf"a bundle in it, such as {tmp_path}/student\.edgekd$"):
        Bundle.open(tmp_path)
