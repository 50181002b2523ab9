"""Configurations: precedence, bounds, unknown keys, files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from edgekd.config import (
    DistillConfig,
    FitConfig,
    TrainConfig,
    list_unset_variables,
    read_environment,
)
from edgekd.config_reader import build_config, load_config
from edgekd.errors import InputError, UsageError

needs_tomllib = pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 reads no TOML")


def test_options_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"epochs": 5, "lr": 0.1, "augment": {"noise": 0.2, "flip": False}}))
    config = load_config(TrainConfig, path, {"lr": 0.3, "augment.noise": 0.0, "batch_size": None})
    assert (config.epochs, config.lr, config.batch_size) == (5, 0.3, TrainConfig().batch_size)
    assert (config.augment.noise, config.augment.flip) == (0.0, False)
    assert config.augment.gain == TrainConfig().augment.gain


@needs_tomllib
def test_toml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('student = "dwnet"\n[split]\nsalt = "x"\n[student_options]\nwidth = 8\n')
    config = load_config(DistillConfig, path)
    assert (config.student, config.split.salt, config.student_options) == ("dwnet", "x", {"width": 8})


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be parsed"), ("[1]", "is no table"), (None, "cannot be read")]
)
def test_bad_files_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "run.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_config(TrainConfig, path)
    assert str(path) in str(caught.value)


def test_a_missing_file_says_so_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"received no such file\. Next: name an existing") as caught:
        load_config(TrainConfig, tmp_path / "run.toml")
    assert "Errno" not in str(caught.value)


def test_a_folder_or_bytes_for_a_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="received is a directory, expected a TOML"):
        load_config(TrainConfig, tmp_path)
    (tmp_path / "run.json").write_bytes(b"{\xff}")
    with pytest.raises(InputError, match="received a byte that is no UTF-8 at 1"):
        load_config(TrainConfig, tmp_path / "run.json")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("color", "grey", "'color' has a bad value: received 'grey', expected 'gray' or 'rgb'"),
        ("lr", float("nan"), "'lr' has a bad value: received nan, expected a finite number"),
        ("epochs", float("nan"), "'epochs' has a bad value: received nan, expected a finite number"),
        ("image_size", 16, "received 16, expected greater than or equal to 32"),
        ("crop", 3, "'crop' has a bad value: .* a table of keys and values: top, left, height, width$"),
        ("crop.top", 0, "'crop.left' is missing: expected a value"),
        ("crop.hieght", 0, "received 'crop.hieght', .* did you mean 'crop.height'"),
        ("teacher", 3, "'teacher' has a bad value: received 3, expected a valid string or a valid tuple"),
        ("teacher", ["a", 3], "'teacher.1' has a bad value: received 3, expected a valid string$"),
        ("teacher", [], "'teacher' has a bad value: .* at least 1 item"),
        ("classes", {"names": ["a", 3]}, "'classes.names.1' has a bad value"),
        ("classes", {"names": ["a"]}, "'classes.names' has a bad value: .* expected at least 2 items$"),
        ("student_options", 3, "'student_options' has a bad value: .* a table of keys and values"),
        (
            "student_options.width",
            [1],
            r"'student_options.width' .* expected a number, a text, true or false",
        ),
    ],
)
def test_bad_values_are_told_in_plain_words(key: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(DistillConfig, None, {key: value})


def test_unset_variables_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_TEST_ONE", "1")
    monkeypatch.setenv("EDGEKD_TEST_TWO", "")
    names = ("EDGEKD_TEST_TWO", "EDGEKD_TEST_ONE", "EDGEKD_TEST_THREE")
    assert list_unset_variables(names) == ["EDGEKD_TEST_TWO", "EDGEKD_TEST_THREE"]


@pytest.mark.parametrize(
    ("key", "nearest"), [("epocs", "epochs"), ("augment.nois", "augment.noise"), ("split.sald", "split.salt")]
)
def test_an_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{nearest}'"):
        load_config(DistillConfig, None, {key: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", 16),
        ("image_size", 1.5),
        ("batch_size", 0),
        ("lr", 0),
        ("lr", float("nan")),
        ("weight_decay", -1),
        ("warmup_fraction", 0.6),
        ("seed", -1),
        ("epochs", 0),
        ("temperature", 0.5),
        ("precision", "fp16"),
        ("devices", 0),
        ("augment.gamma", 0.5),
        ("classes.names", ["background"]),
    ],
)
def test_values_out_of_range_name_the_key(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"'{key}"):
        load_config(DistillConfig, None, {key: value})


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValidationError):
        TrainConfig().lr = 0.5  # pyright: ignore[reportAttributeAccessIssue]


def test_a_configuration_survives_json() -> None:
    config = DistillConfig.model_validate(
        {"classes": {"names": ["a", "b", "c"]}, "student_options": {"width": 4}}
    )
    assert build_config(DistillConfig, json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(("dtype", "levels"), [("uint8", 255), ("uint16", 65535)])
def test_the_preprocessing_maps_the_full_range_to_two_either_way(dtype: str, levels: int) -> None:
    spec = build_config(
        FitConfig, {"image_size": 64, "color": "rgb", "frame_dtype": dtype}
    ).build_preprocess()
    assert (spec.height, spec.width, spec.channels) == (64, 64, 3)
    assert [(value * spec.scale - spec.mean[2]) / spec.std[2] for value in (0, levels)] == pytest.approx(
        [-2, 2]
    )


def test_frames_of_fewer_bits_fill_the_range_too() -> None:
    values = {"frame_dtype": "uint16", "bits_stored": 12}
    spec = build_config(FitConfig, values).build_preprocess()
    assert (4095 * spec.scale, spec.white) == (pytest.approx(1), 4095)
    for dtype, bits in (("uint16", 8), ("uint8", 12)):
        values = {"frame_dtype": dtype, "bits_stored": bits}
        with pytest.raises(UsageError, match=f"received bits_stored {bits}, expected at most"):
            build_config(FitConfig, values).build_preprocess()


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKD_DATA", raising=False)
    assert read_environment().data is None
    monkeypatch.setenv("EDGEKD_DATA", "/somewhere")
    assert read_environment().data == Path("/somewhere")


def test_the_default_networks_are_those_of_the_catalogue() -> None:
    models = pytest.importorskip("edgekd.models", reason="the catalogue needs torch (extra train)")
    assert DistillConfig().teacher == TrainConfig().model == models.DEFAULT_TEACHER
    assert DistillConfig().student == models.DEFAULT_STUDENT


def _read_table(title: str) -> dict[str, Any]:
    """Return key → default of the table below a title of docs/configuration.md."""
    text = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return {key: json.loads(value) for key, value in re.findall(r"^\| `(.+?)` \| `(.*?)` \|", section, re.M)}


def _list_defaults(config: Any, *, inside: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config:
        if isinstance(value, BaseModel):
            found |= _list_defaults(value, inside=f"{inside}{key}.")
        else:
            found[inside + key] = json.loads(json.dumps(value))
    return found


def test_the_reference_of_the_configuration_is_complete() -> None:
    common = _list_defaults(FitConfig())
    assert _read_table("Both verbs") == common
    for title, config in (("`edgekd train`", TrainConfig()), ("`edgekd distill`", DistillConfig())):
        own = {key: value for key, value in _list_defaults(config).items() if common.get(key, ...) != value}
        assert _read_table(title) | {"lr": config.lr} == own | {"lr": config.lr}
