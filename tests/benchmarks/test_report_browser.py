"""The page in a real browser: keyboard, plots, no overflow; skipped with its reason where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.benchmarks import PaceConfig, ScenarioConfig, StopRule, run_acceptance
from edgekd.benchmarks.suites.report_browser import find_browser, inspect_report, list_faults
from edgekd.bundle import Bundle, Recording


@pytest.mark.skipif(find_browser() is None, reason="chromium with chromedriver is not installed")
def test_page_is_whole_in_a_browser(
    bundle: Bundle, add_build: Callable, data: Path, reference: Recording, tmp_path: Path
) -> None:
    pytest.importorskip("selenium", reason="selenium drives the browser")
    add_build("onnx")
    add_build("openvino")
    add_build("tensorrt-rtx", device="GPU")
    scenarios = ScenarioConfig(("single-stream", "paced"), paces=(PaceConfig(fps=500),))
    out = tmp_path / "out"
    run_acceptance(bundle, data=data, rule=StopRule(120, 0), scenarios=scenarios, out=out, quiet=True)
    found = inspect_report(out / "report.html", axe=None)
    assert list_faults(found) == []
    assert len(found["flips"]) == 5
    assert "engine's mask" in found["flips"][0]
    assert found["flips"][-1] == ""
    # The same look finds what is wrong: a script, a request, a chart that is gone, a page too wide.
    page = (out / "report.html").read_text()
    spoilt = page.replace("</body>", '<img src="http://127.0.0.1:9/x.png" alt=""><script>1</script></body>')
    spoilt = spoilt.replace("<svg", "<svg hidden").replace(
        "svg.chart { display: block", "svg.chart { display: none"
    )
    spoilt = spoilt.replace("<main>", '<main><div style="width:3000px">wide</div>').replace(
        'type="radio"', ""
    )
    (tmp_path / "spoilt.html").write_text(spoilt)
    faults = " ".join(list_faults(inspect_report(tmp_path / "spoilt.html", axe=None)))
    for part in ("console: ", "0 charts", "wider than the window", "arrow keys"):
        assert part in faults
