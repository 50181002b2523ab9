"""Feature taps: by name and by path, compiled or not, and never part of what is saved or exported."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.distill.taps import FeatureTaps, TapPair, measure_channels, parse_taps, tapped
from edgekd.errors import UsageError
from edgekd.models import CATALOGUE, build_model, list_taps


def build_student() -> nn.Module:
    torch.manual_seed(0)
    return build_model("unet-narrow", 1, 2, {"width": 2}).eval()


def measure_taps(name: str, options: dict[str, int], size: int) -> dict[str, int]:
    """Return the side of the features at every named tap, pixels, for an image of the given side."""
    network = build_model(name, 1, 2, options).eval()
    taps = list_taps(name, network)
    with tapped(network, name, {tap: tap for tap in taps}) as features, torch.no_grad():
        network(torch.zeros(1, 1, size, size))
        found = features.take()
    assert found.keys() == taps.keys()
    return {tap: value.shape[-1] for tap, value in found.items()}


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_a_name_tells_the_resolution_in_every_network(name: str) -> None:
    options = {"width": 4} if name.startswith(("dynunet", "unet-wide")) else {"width": 2}
    sides = measure_taps(name, options, 64)
    assert {"enc2", "enc4", "enc8", "enc16", "dec2", "dec4", "dec8"} <= sides.keys()
    assert all(side == 64 // int(tap[3:]) for tap, side in sides.items())


@pytest.mark.parametrize("levels", [3, 4, 5, 7])
def test_a_name_tells_the_resolution_at_every_depth(levels: int) -> None:
    sides = measure_taps("dynunet", {"width": 2, "levels": levels}, 128)
    factors = [2**level for level in range(levels)]
    expected = {f"enc{factor}": 128 // factor for factor in factors}
    assert sides == expected | {f"dec{factor}": 128 // factor for factor in factors[:-1]}


def test_a_foreign_network_is_tapped_by_path() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()
    image = torch.randn(2, 1, 4, 4)
    with tapped(network, "mine:build", {"mid": "1"}) as features:
        network(image)
        assert torch.equal(features.take()["mid"], network[1](network[0](image)))


def test_taps_end_with_the_block_and_forget_what_was_taken() -> None:
    network = build_student()
    with tapped(network, "unet-narrow", {"a": "enc8"}) as features:
        network(torch.zeros(1, 1, 32, 32))
        assert features.take().keys() == {"a"}
        assert features.take() == {}
    network(torch.zeros(1, 1, 32, 32))
    assert features.take() == {}


def test_a_compiled_network_gives_the_same_features_in_one_graph() -> None:
    network = build_student()
    image = torch.randn(1, 1, 32, 32)
    with tapped(network, "unet-narrow", {"a": "enc8", "b": "dec2"}) as features:
        network(image)
        expected = features.take()
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        compiled(image)
        found = features.take()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_nothing_of_a_tap_is_saved_or_exported() -> None:
    plain, network = build_student(), build_student()
    with tapped(network, "unet-narrow", {"a": "enc8"}):
        assert network.state_dict().keys() == plain.state_dict().keys()
        programs = [torch.export.export(one, (torch.zeros(1, 1, 32, 32),)) for one in (plain, network)]
    nodes = [[str(node.target) for node in program.graph.nodes] for program in programs]
    assert nodes[0] == nodes[1]
    assert len(programs[1].graph_signature.user_outputs) == 1


def test_pairs_are_parsed() -> None:
    assert parse_taps("") == ()
    assert parse_taps("enc16, layers.3=dec4") == (TapPair("enc16", "enc16"), TapPair("layers.3", "dec4"))


@pytest.mark.parametrize("text", ["enc16,,dec4", "=enc4", "enc4=", "enc4,enc4"])
def test_bad_pairs_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_taps(text)


def test_an_unknown_tap_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'enc16'"):
        FeatureTaps(build_student(), "unet-narrow", {"a": "enc_16"})


@pytest.mark.parametrize("training", [True, False])
def test_features_that_are_written_over_are_refused(training: bool) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).train(training)
    image = torch.randn(2, 1, 8, 8)
    with tapped(network, "foreign", {"kept": "0", "norm": "1"}) as features:
        network(image)
        with pytest.raises(UsageError, match=r"'norm' gave was changed.*in place"):
            features.take()
    with tapped(network, "foreign", {"kept": "0", "relu": "2"}) as features:
        network(image)
        found = features.take()
    assert found["relu"].min() == 0 > found["kept"].min()


def test_one_pixel_is_no_feature_map() -> None:
    with pytest.raises(UsageError, match="more than one pixel"):
        measure_channels(build_student(), "unet-narrow", {"a": "enc16"}, (1, 16, 16))


def test_channels_are_counted_and_the_mode_is_put_back() -> None:
    network = build_student().train()
    assert measure_channels(network, "unet-narrow", {"a": "enc8", "b": "dec2"}, (1, 32, 32)) == {
        "a": 16,
        "b": 4,
    }
    assert all(module.training for module in network.modules())
