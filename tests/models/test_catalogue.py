"""The catalogue: every network runs, costs what was promised, and folds to plain convolutions."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="networks need torch (extra train)")
pytest.importorskip("monai", reason="the teachers are MONAI's (extra train)")

from torch import nn  # noqa: E402
from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: E402

from edgekd.errors import UsageError  # noqa: E402
from edgekd.models import (  # noqa: E402
    CATALOGUE,
    DEFAULT_STUDENT,
    DEFAULT_TEACHER,
    build_model,
    check_image_size,
    check_network,
    count_model,
    describe_catalogue,
    find_size_multiple,
    resolve_options,
)


def fold_norms(network: nn.Module) -> nn.Module:
    """Fold each batch norm that directly follows a convolution in a sequence into it."""
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index in range(1, len(sequence)):
            before, norm = sequence[index - 1], sequence[index]
            if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[index - 1], sequence[index] = fuse_conv_bn_eval(before, norm), nn.Identity()
    return network


STUDENTS = [name for name, entry in CATALOGUE.items() if entry.role == "student"]


@pytest.mark.parametrize("name", CATALOGUE)
def test_logits_have_the_image_size_for_any_channels_and_classes(name: str) -> None:
    network = build_model(name, 3, 4, {"width": 4})
    size = find_size_multiple(name)
    check_network(name, network, 3, 4, 2 * size, 3 * size)


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    network = build_model(name, 1, 2, {"width": 4}).train()
    size = 2 * find_size_multiple(name)
    network(torch.randn(2, 1, size, size)).square().mean().backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []


def test_the_default_teacher_is_twenty_times_the_default_student() -> None:
    facts = {fact.name: fact for fact in describe_catalogue(256)}
    assert [fact.name for fact in facts.values() if fact.is_default] == [DEFAULT_TEACHER, DEFAULT_STUDENT]
    teacher, student = facts[DEFAULT_TEACHER], facts[DEFAULT_STUDENT]
    assert teacher.parameters >= 20 * student.parameters
    assert teacher.macs >= 20 * student.macs
    assert {fact.role for fact in facts.values()} == {"teacher", "student"}


def test_a_network_that_cannot_take_a_size_is_listed_without_its_cost() -> None:
    odd, even = ({fact.name: fact for fact in describe_catalogue(size)} for size in (48, 64))
    assert odd["dynunet"].macs is None
    assert odd["dynunet"].parameters == even["dynunet"].parameters
    assert None not in (odd["unet-narrow"].macs, even["dynunet"].macs)


def test_students_span_the_promised_sizes() -> None:
    parameters = [fact.parameters for fact in describe_catalogue(64) if fact.role == "student"]
    assert min(parameters) < 35_000
    assert 450_000 < max(parameters) < 550_000


@pytest.mark.parametrize("name", STUDENTS)
def test_students_fold_to_plain_convolutions(name: str) -> None:
    torch.manual_seed(0)
    network = build_model(name, 1, 2)
    images = torch.randn(2, 1, 64, 64)
    for _ in range(3):
        network.train()(images)
    folded = fold_norms(copy.deepcopy(network.eval()))
    kinds = {type(module) for module in folded.modules() if not list(module.children())}
    assert kinds <= {nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Upsample, nn.Identity}
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images), atol=2e-4, rtol=1e-3)


def test_dense_and_separable_students_are_of_different_kind() -> None:
    kernels = {
        name: {
            (m.kernel_size, m.groups > 1)
            for m in build_model(name, 1, 2).modules()
            if isinstance(m, nn.Conv2d)
        }
        for name in ("unet-narrow", "dwnet")
    }
    assert kernels["unet-narrow"] == {((3, 3), False), ((1, 1), False)}
    assert ((7, 7), True) in kernels["dwnet"]


def test_counts_by_hand_and_the_model_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parameters, macs = count_model(network, 2, 8, 10)
    assert parameters == (2 * 3 * 9 + 3) + 6 + (3 * 4 + 4)
    assert macs == 80 * (2 * 3 * 9 + 3 * 4)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_options_of_the_caller_win() -> None:
    assert resolve_options("unet-narrow-xs") == {"width": 4}
    assert resolve_options("unet-narrow-xs", {"width": 5}) == {"width": 5}
    assert build_model("unet-narrow-xs", 1, 2, {"width": 5}).head.in_channels == 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet-narow", {}, "did you mean 'unet-narrow'"),
        ("unet-narrow", {"widht": 3}, "did you mean 'width'"),
        ("unet-narrow", {"width": 0}, "out of range"),
        ("unet-narrow", {"width": 2.5}, "out of range"),
        ("nowhere.at_all:build", {}, "cannot be imported"),
        ("edgekd.models.unet:nothing", {}, "cannot be imported"),
        (":build", {}, "cannot be imported"),
        ("edgekd.models.unet:DEPTH_FACTORS", {}, "is no factory"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_model(name, 1, 2, options)


def test_a_size_that_cannot_be_halved_names_the_multiple() -> None:
    check_image_size("dynunet", 96, 64)
    check_image_size("unet-narrow", 48, 80)
    with pytest.raises(UsageError, match=r"multiples of 32. Next: use 96×64"):
        check_image_size("dynunet", 100, 64)


@pytest.mark.parametrize(("levels", "multiple"), [(3, 4), (5, 16), (7, 64)])
def test_the_size_follows_the_depth_that_was_asked_for(levels: int, multiple: int) -> None:
    options = {"width": 2, "levels": levels}
    check_image_size("dynunet", 3 * multiple, 2 * multiple, options)
    check_network("dynunet", build_model("dynunet", 1, 2, options), 1, 2, 3 * multiple, 2 * multiple)
    with pytest.raises(UsageError, match=f"multiples of {multiple}"):
        check_image_size("dynunet", multiple + multiple // 2, multiple, options)


def test_any_factory_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def build(in_channels, num_classes, kernel=1):\n"
        "    return nn.Conv2d(in_channels, num_classes, kernel, padding=kernel // 2)\n"
        "def build_half(in_channels, num_classes):\n"
        "    return nn.Conv2d(in_channels, num_classes, 2, stride=2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    network = build_model("my_networks:build", 1, 2, {"kernel": 5})
    assert network.kernel_size == (5, 5)
    check_network("my_networks:build", network, 1, 2, 33, 47)
    with pytest.raises(UsageError, match="did you mean 'kernel'"):
        build_model("my_networks:build", 1, 2, {"kernal": 5})
    half = build_model("my_networks:build_half", 1, 2)
    with pytest.raises(UsageError, match=r"received \(1, 2, 16, 16\), expected \(1, 2, 32, 32\)"):
        check_network("my_networks:build_half", half, 1, 2, 32, 32)
    with pytest.raises(UsageError, match="failed on an image of 1×1"):
        check_network("my_networks:build_half", half, 1, 2, 1, 1)
    sys.modules.pop("my_networks")


FACTORIES = """
from torch import nn

def build_positional(in_channels, num_classes, /):
    return nn.Conv2d(in_channels, num_classes, 1)

def build_demanding(in_channels, num_classes, depth):
    return nn.Conv2d(in_channels, num_classes, depth)

def build_raising(in_channels, num_classes):
    raise KeyError("weights.pt")

def build_silent(in_channels, num_classes):
    assert num_classes > 99

def build_text(**keywords):
    return "a network"

def build_fixed(in_channels, num_classes):
    return nn.Identity()

class Picky(nn.Conv2d):
    def forward(self, image):
        raise TypeError

def build_picky(in_channels, num_classes):
    return Picky(in_channels, num_classes, 1)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os.path:join", r"'os.path:join' cannot be called: received join\(a, \*p\): "),
        ("odd_factories:build_positional", "build_positional' cannot be called"),
        ("odd_factories:build_demanding", "missing a required argument: 'depth'"),
        ("odd_factories:build_raising", "build_raising' failed: received KeyError: 'weights.pt'"),
        ("odd_factories:build_silent", "build_silent' failed: received AssertionError, expected"),
        ("odd_factories:build_text", "build_text' returns no network: received str"),
        ("math:hypot", "math:hypot' failed: received TypeError"),
    ],
)
def test_a_factory_that_builds_no_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "odd_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=message) as caught:
        build_model(name, 1, 2)
    sys.modules.pop("odd_factories", None)
    assert "factory(in_channels: int, num_classes: int, **options) -> torch.nn.Module" in str(caught.value)


def test_a_network_that_cannot_learn_or_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, message in (("build_fixed", "has nothing to train"), ("build_picky", "received TypeError")):
        network = build_model(f"odd_factories:{name}", 1, 2)
        with pytest.raises(UsageError, match=message):
            check_network(f"odd_factories:{name}", network, 1, 2, 32, 32)
    sys.modules.pop("odd_factories")


def test_a_module_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_factories.py").write_text("def build(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="cannot be imported: received SyntaxError"):
        build_model("broken_factories:build", 1, 2)
