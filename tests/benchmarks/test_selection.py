"""Which builds are run, which are left out and why, and what is next where none can run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekd.benchmarks import selection
from edgekd.benchmarks.selection import choose_builds
from edgekd.bundle import Bundle
from edgekd.errors import MachineError


def test_builds_that_nobody_asked_for_are_listed_without_being_read(
    bundle: Bundle, add_build: Callable
) -> None:
    for target in ("onnx", "openvino"):
        add_build(target)
    (bundle.path / "builds/openvino-fp32-cpu/build.json").write_text("damaged")
    choices, skipped = choose_builds(bundle, ["onnx"])
    assert [one.name for one in choices] == ["onnx-fp32-cpu"]
    assert [(one.name, one.reason, one.is_obstacle) for one in skipped] == [
        ("openvino-fp32-cpu", "not asked for", False)
    ]


@pytest.mark.parametrize(
    ("precision", "command"),
    [
        ("int8", "--target onnx --precision int8"),
        ("bf16", "--target openvino --precision bf16"),
        ("fp16", "--target tensorrt --precision fp16"),
    ],
)
def test_where_none_has_the_precision_the_command_that_makes_one_is_named(
    bundle: Bundle, add_build: Callable, precision: str, command: str
) -> None:
    add_build("onnx")
    with pytest.raises(MachineError, match=f"can run here in {precision}: .*") as caught:
        choose_builds(bundle, precision=precision)
    assert str(caught.value).endswith(f"Next: edgekd export {bundle.path} {command}")


def test_a_device_that_is_not_here_is_told_with_one_thing_to_do(
    bundle: Bundle, add_build: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = [add_build(target) for target in ("onnx", "openvino")]
    reasons = [(build, f"no GPU here. Next: buy one for {build.name}") for build in builds]
    monkeypatch.setattr(selection, "list_runnable", lambda bundle, device: reasons)
    with pytest.raises(MachineError, match=r"leave --device GPU out") as caught:
        choose_builds(bundle, device="GPU")
    assert str(caught.value).count("Next:") == 1
    # Where one build alone is there, what it needs is next.
    del reasons[0]
    with pytest.raises(
        MachineError, match=r"received openvino-fp32-cpu: no GPU here\. Next: buy one for"
    ) as caught:
        choose_builds(bundle, device="GPU")
    assert str(caught.value).count("Next:") == 1


def test_without_any_build_the_first_one_is_next(bundle: Bundle) -> None:
    with pytest.raises(MachineError, match=r"no build at all\. Next: edgekd export .* --target onnx$"):
        choose_builds(bundle, device="CPU")
