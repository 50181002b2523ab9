"""The page: complete, escaped, self-contained; opened in a real browser where one is installed."""

from __future__ import annotations

import html.parser
import itertools
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.benchmarks import PaceConfig, ScenarioConfig, StopRule, run_benchmark, run_parity, write_report
from edgekd.benchmarks.html import Html, build_table, element
from edgekd.benchmarks.report_page import DISCLAIMER
from edgekd.bundle import Bundle, Recording

EVIL = "<script>alert(1)</script>\"'&"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path
) -> Callable[..., str]:
    """Write a page with every part and return its text."""
    add_build("onnx")
    add_build("openvino")
    add_build("tensorrt-rtx", device="GPU")

    def write(**changes: Any) -> str:
        parity = run_parity(bundle, data=data, quiet=True)
        paced = ScenarioConfig(("single-stream", "paced"), paces=(PaceConfig(fps=500),))
        latency = run_benchmark(bundle, rule=StopRule(120, 0), scenarios=paced, quiet=True)
        models = [
            {
                "name": EVIL,
                "acc": 0.98,
                "miou": 0.8,
                "dice": 0.9,
                "kappa": None,
                "parameters": 61000,
                "macs": 2e9,
            }
        ]
        parts: dict[str, Any] = {
            "title": f"Report {EVIL}",
            "models": models,
            "parity": parity.to_dict(),
            "latency": latency.to_dict(),
            "overlays": parity.overlays,
            "legend": parity.legend,
            "environment": parity.environment,
            "commands": ["edgekd distill DATA"],
        }
        return write_report(tmp_path / "page", **(parts | changes)).read_text()

    return write


class _Reader(html.parser.HTMLParser):
    """Collects tags with their attributes and checks that they close in order."""

    void = frozenset({"meta", "link", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_page_is_whole_escaped_and_asks_for_nothing(page: Callable[..., str]) -> None:
    text = page()
    reader = read_page(text)
    names = [tag for tag, _ in reader.tags]
    assert "script" not in names
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    for tag, attributes in reader.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), tag
    assert not re.search(r"url\(|@import|https?://", text.replace("http://www.w3.org/2000/svg", ""))
    assert DISCLAIMER in text
    assert not re.search(r"\bnan\b|>None<|\$[a-z]", re.sub(r"base64,[^\"]*", "", text))


def test_page_is_accessible(page: Callable[..., str]) -> None:
    reader = read_page(page())
    tags = dict(reader.tags)
    assert tags["html"]["lang"] == "en"
    assert tags["meta"] is not None
    names = [tag for tag, _ in reader.tags]
    assert names.count("h1") == 1
    assert names.count("caption") == names.count("table") >= 6
    pictures = [attributes for tag, attributes in reader.tags if tag == "img"]
    bases = [picture for picture in pictures if "class" not in picture]
    layers = [picture for picture in pictures if "class" in picture]
    assert len(bases) == 5
    assert len(layers) == 4 * 5
    # The bare frame is behind every view; what is seen stands with the view.
    assert all(picture["alt"] == "" for picture in bases)
    assert all(len(picture["alt"] or "") > 20 for picture in layers)
    drawings = [attributes for tag, attributes in reader.tags if tag == "svg"]
    # Distribution, tail, pace, stages, differences, tradeoff; each once for wide pages and once for phones.
    assert len(drawings) == 2 * 6
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)
    identities = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    targets = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    assert targets[0] == "#verdict"
    assert {str(target)[1:] for target in targets} <= set(identities)
    levels = [int(tag[1]) for tag in names if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({}, "Parity failed"),
        ({"parity": None}, "Parity was not measured"),
    ],
)
def test_verdict_comes_first(page: Callable[..., str], changes: dict[str, Any], headline: str) -> None:
    text = page(**changes)
    assert re.search(r"<h2>([^<]*)", text)[1] == headline  # type: ignore[index]
    assert "is the fastest" in text
    assert "with 95 % confidence" in text


def test_build_that_was_not_run_is_nowhere_shown_as_passed(page: Callable[..., str]) -> None:
    text = page()
    cards = re.findall(r"<li><h3>(.*?)</h3>(.*?)</li>", text)
    tags = {name: re.findall(r'class="tag (\w+)">([^<]*)', card) for name, card in cards}
    assert tags["onnx-fp32-cpu"] == [("good", "non-inferior")]
    assert tags["openvino-fp32-cpu"][0][0] == "bad"
    mood, status = tags["tensorrt-rtx-fp32-gpu"][0]
    assert mood == "rest"
    assert status in ("not run", "skipped", "built, not run")
    assert "this machine has no such device" in dict(cards)["tensorrt-rtx-fp32-gpu"]
    # Screen readers list the tables by their names.
    regions = re.findall(r'role="region" aria-label="([^"]*)"', text)
    assert {"Builds that were not judged", "Builds that were not timed"} <= set(regions)
    assert len(regions) == len(set(regions))


def test_verdicts_of_passing_and_undecided_builds(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path
) -> None:
    add_build("onnx")
    golden = write_report(tmp_path / "a", title="x", parity=run_parity(bundle).to_dict()).read_text()
    assert "Consistent: 1 build in agreement" in golden
    assert "Parity passed" not in golden and "can go unseen" not in golden
    on_data = run_parity(bundle, data=data, quiet=True).to_dict()
    groups = on_data["results"][0]["num_groups"]
    passed = write_report(tmp_path / "b", title="x", parity=on_data).read_text()
    assert "Parity passed: 1 build non-inferior" in passed
    assert f"with {groups} groups, a fault that fewer than {3 / groups:.1%} of the patients" in passed
    # Identical masks pass with any number of groups.
    for few, said in ((1, "1 group is too few"), (19, "19 groups are too few")):
        on_data["results"][0]["num_groups"] = few
        page = write_report(tmp_path / f"few{few}", title="x", parity=on_data).read_text()
        assert f"{said} to see rare faults, the gate asks for 20" in page and "can go unseen" not in page
    on_data["passed"] = on_data["results"][0]["passed"] = False
    on_data["results"][0]["conclusion"] = "inconclusive"
    undecided = write_report(tmp_path / "c", title="x", parity=on_data).read_text()
    assert "undecided, which counts as failed" in undecided and "can go unseen" not in undecided


def test_fastest_build_is_one_that_passed(page: Callable[..., str]) -> None:
    def time_builds(**medians_ms: float) -> dict[str, Any]:
        results = [
            {
                "name": name.replace("_", "-"),
                "load_ns": 1,
                "first_ns": 1,
                "percentiles_ms": dict.fromkeys(("p50", "p90", "p99", "p99.9", "max"), median_ms),
                "stage_percentiles_ms": {},
                "num_samples": 2,
                "samples_ns": [round(1e6 * median_ms)] * 2,
                "warnings": [],
            }
            for name, median_ms in medians_ms.items()
        ]
        return {"results": results, "skipped": [], "frames": "two"}

    takes = "half of the frames take at most"
    all_builds = time_builds(null=0.01, openvino_fp32_cpu=1.0, onnx_fp32_cpu=2.0)
    failed = time_builds(null=0.01, openvino_fp32_cpu=1.0)
    for changes, said in (
        ({"latency": all_builds}, f"onnx-fp32-cpu is the fastest that passed the gate: {takes} 2.000 ms."),
        (
            {"latency": failed},
            f"openvino-fp32-cpu is the fastest, but none that was timed passed: {takes} 1",
        ),
        (
            {"latency": all_builds, "parity": None},
            f"null is the fastest, but none that was timed was judged: {takes} 0.010 ms.",
        ),
    ):
        assert f"<li>{said}" in page(**changes)


def test_parts_that_are_missing_are_left_out(tmp_path: Path) -> None:
    text = write_report(tmp_path, title="Nothing yet").read_text()
    read_page(text)
    assert re.findall(r"<h2>([^<]*)", text) == ["Parity was not measured"]


def test_stages_are_drawn_to_scale(page: Callable[..., str]) -> None:
    result = {
        "name": "a",
        "load_ns": 1,
        "first_ns": 1,
        "percentiles_ms": dict.fromkeys(("p50", "p90", "p99", "p99.9", "max"), 3.0),
        "stage_percentiles_ms": {"preprocess": {"p50": 1.0}, "infer": {"p50": 2.0}},
        "num_samples": 2,
        "samples_ns": [3_000_000, 3_000_000],
        "warnings": [],
    }
    text = page(latency={"results": [result], "skipped": [], "frames": "two"})
    widths = [
        float(re.search(r'width="([\d.]+)"', rect)[1])  # type: ignore[index]
        for rect in re.findall(r"<rect [^>]*><title>[^<]*</title>", text)
    ]
    assert len(widths) == 4
    assert math.isclose(widths[1], 2 * widths[0], rel_tol=0.01)
    assert math.isclose(widths[3], 2 * widths[2], rel_tol=0.01)


def test_helper_escapes_everything_but_its_own_html() -> None:
    assert element("td", EVIL, title=EVIL).count("<") == 2
    assert element("p", element("b", "x"), None, Html("<i>y</i>")) == "<p><b>x</b><i>y</i></p>"
    table = build_table(EVIL, ["a", EVIL], [[EVIL, 1], ["b", EVIL]])
    assert "<script" not in table
    assert '<td class="words">1</td>' in table


def browse(path: Path, profile: Path) -> tuple[str, list[str]]:
    """Open a page and return its text with every console message and every request the page made."""
    network_log = profile.with_suffix(".json")
    done = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-default-apps",
            "--disable-extensions",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            f"--log-net-log={network_log}",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    faults = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    for event in json.loads(network_log.read_text())["events"]:
        facts = event.get("params", {})
        # Requests of the browser itself carry another key; what a page asks for is keyed by the page.
        if str(facts.get("network_isolation_key", "")).startswith("file://"):
            faults.append(facts["url"])
    return done.stdout, faults


@pytest.mark.skipif(BROWSER is None, reason="no chromium installed")
def test_page_opens_in_a_browser_without_error_or_request(page: Callable[..., str], tmp_path: Path) -> None:
    text = page()
    shown, faults = browse(tmp_path / "page" / "report.html", tmp_path / "profile")
    assert "Parity failed" in shown
    assert faults == []
    # The same check finds a page that does ask: with its policy taken away, or stopped by it.
    asking = text.replace("</body>", '<img src="http://127.0.0.1:9/x.png" alt=""></body>')
    for name, content in (("stopped", asking), ("asking", re.sub("<meta http-equiv[^>]*>", "", asking))):
        path = tmp_path / f"{name}.html"
        path.write_text(content)
        assert any("127.0.0.1:9" in fault for fault in browse(path, tmp_path / name)[1]), name
