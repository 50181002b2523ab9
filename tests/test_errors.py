from __future__ import annotations

import pytest

from edgekd import errors


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "it failed"),
        ({"received": 1}, "it failed: received 1"),
        ({"expected": 2}, "it failed: expected 2"),
        ({"received": 0, "expected": 2}, "it failed: received 0, expected 2"),
        ({"received": 0, "expected": 2, "action": "try 2"}, "it failed: received 0, expected 2. Next: try 2"),
    ],
)
def test_message_names_received_expected_and_next_step(arguments: dict[str, object], text: str) -> None:
    assert str(errors.InputError("it failed", **arguments)) == text  # type: ignore[arg-type]


def test_exit_codes() -> None:
    codes = {kind.__name__: kind.exit_code for kind in errors.EdgeKDError.__subclasses__()}
    assert codes == {
        "UsageError": 2,
        "InputError": 2,
        "GateFailure": 1,
        "MachineError": 3,
        "IntegrityError": 4,
        "SegmenterFault": 70,
    }


def test_tree_in_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    for kind in errors.EdgeKDError.__subclasses__():
        line = next(line for line in errors.__doc__.splitlines() if kind.__name__ in line)
        assert f" {kind.exit_code}  " in line


@pytest.mark.parametrize(("name", "nearest"), [("openvin", "openvino"), ("onx", "onnx"), ("zzz", None)])
def test_unknown_name_offers_the_nearest(name: str, nearest: str | None) -> None:
    error = errors.build_unknown_name_error("target", name, ["onnx", "openvino", "tensorrt"])
    assert error.exit_code == 2
    assert ("did you mean" in str(error)) == (nearest is not None)
    if nearest is not None:
        assert repr(nearest) in str(error)
