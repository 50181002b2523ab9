from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgekd.atomic import (
    check_output_is_new,
    hash_file,
    staged_folder,
    temporary_folder,
    write_bytes_atomic,
    write_json_atomic,
)
from edgekd.errors import MachineError, UsageError


def test_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_json_atomic(path, {"step": 1})

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(MachineError, match="the disk is full") as caught:
        write_json_atomic(path, {"step": 2})
    assert caught.value.exit_code == 3
    assert path.read_text() == '{\n  "step": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_used_up_quota_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="the disk is full"), staged_folder(tmp_path / "out"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert not list(tmp_path.iterdir())


def test_a_file_larger_than_allowed_names_the_limit(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="ulimit -f"), staged_folder(tmp_path / "out"):
        raise OSError(errno.EFBIG, "File too large")


def test_a_full_temporary_folder_is_a_full_disk() -> None:
    with pytest.raises(MachineError, match="the disk is full while writing"), temporary_folder() as folder:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "graph.onnx"))
    assert not folder.exists()


def test_other_os_errors_pass_through(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError):
        write_bytes_atomic(tmp_path / "file" / "below", b"x")


def test_written_file_is_readable_as_any_new_file(tmp_path: Path) -> None:
    write_bytes_atomic(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with pytest.raises(RuntimeError), staged_folder(final) as staging:
        (staging / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with staged_folder(final) as staging:
        (staging / "whole").write_text("x")
        assert not final.exists()
    assert [path.name for path in final.iterdir()] == ["whole"]


def test_staged_folder_refuses_an_existing_one(tmp_path: Path) -> None:
    final = tmp_path / "out"
    final.mkdir()
    with pytest.raises(UsageError, match="exists already"), staged_folder(final):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("name", ["file/x", "file/x/y", "nowhere/x", "n" * 300])
def test_output_that_cannot_be_made_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=f"the output {tmp_path / name} cannot be written"):
        check_output_is_new(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be written"):
        check_output_is_new(Path("/proc/nope/x"))


def test_check_of_an_output_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "out", tmp_path / "a" / "b" / "out", Path("relative/out")):
        check_output_is_new(path)
    assert list(tmp_path.iterdir()) == []


def test_hash_is_sha256_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert hash_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
