"""MLPerf's LoadGen as referee: single-stream medians of one loaded engine, by it and by this harness.

    python -m edgekd.benchmarks.suites.loadgen_referee BUNDLE --target onnx --out FILE.json

Needs the package mlcommons-loadgen. LoadGen stops early where its expected latency is above the true one, so
it is given half of the median. Both time the same call in the same process, one after the other and the
order changing, because a machine's speed drifts; the figure is the median of the ratios of each round.
"""

from __future__ import annotations

import functools
import json
import re
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.benchmarks import StopRule, describe_environment
from edgekd.benchmarks.loops import run_loop, time_segment
from edgekd.benchmarks.quantiles import take_quantile_ns
from edgekd.bundle import Bundle, read_golden
from edgekd.errors import MachineError
from edgekd.runtime import load

MAX_DIFFERENCE = 0.05
MIN_LATENCY_NS = 100_000


def import_loadgen() -> Any:
    """Return LoadGen's module.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import mlperf_loadgen  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise MachineError("this suite needs LoadGen", action="pip install mlcommons-loadgen") from error
    return mlperf_loadgen


def measure_here(segmenter: Any, frames: Any, rule: StopRule) -> int:
    """Return the median in ns of the harness's own single-stream loop."""
    loop = run_loop(functools.partial(time_segment, segmenter), [[frame] for frame in frames], rule, 20)
    return take_quantile_ns(loop.samples_ns, 0.5) or 0


def measure_by_loadgen(segmenter: Any, frames: Any, rule: StopRule, expected_ns: int) -> int:
    """Return LoadGen's median of single-stream latencies in ns."""
    loadgen = import_loadgen()
    batches = [[frame] for frame in frames]

    def issue(samples: Any) -> None:
        for sample in samples:
            segmenter.segment(batches[sample.index % len(batches)])
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])

    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.single_stream_expected_latency_ns = expected_ns
    settings.min_query_count = rule.num_queries
    settings.min_duration_ms = round(rule.min_seconds * 1e3)
    with tempfile.TemporaryDirectory() as folder:
        output = loadgen.LogOutputSettings()
        output.outdir = folder
        output.copy_summary_to_stdout = False
        logs = loadgen.LogSettings()
        logs.log_output = output
        sut = loadgen.ConstructSUT(issue, lambda: None)
        qsl = loadgen.ConstructQSL(len(batches), len(batches), lambda _: None, lambda _: None)
        loadgen.StartTestWithLogSettings(sut, qsl, settings, logs, "audit.config")
        loadgen.DestroyQSL(qsl)
        loadgen.DestroySUT(sut)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
    found = re.search(r"50\.00 percentile latency \(ns\)\s*:\s*(\d+)", summary)
    if found is None:
        raise ValueError(f"LoadGen's summary names no median:\n{summary}")
    return int(found[1])


def compare_with_loadgen(bundle: Bundle, target: str, rounds: int, rule: StopRule) -> dict[str, Any]:
    """Return both medians of each round, their ratios and whether these agree."""
    frames = list(read_golden(bundle).frames)
    pairs: list[tuple[int, int]] = []
    with load(bundle, target, threads=1) as segmenter:
        expected_ns = measure_here(segmenter, frames, rule) // 2
        for index in range(rounds):
            first = measure_here(segmenter, frames, rule) if index % 2 else None
            theirs = measure_by_loadgen(segmenter, frames, rule, expected_ns)
            pairs.append((first or measure_here(segmenter, frames, rule), theirs))
        facts = segmenter.engine.facts()
    ratios = [ours / theirs for ours, theirs in pairs]
    ratio = statistics.median(ratios)
    long_enough = min(theirs for _, theirs in pairs) >= MIN_LATENCY_NS
    return {
        "target": target,
        "engine": facts,
        "rounds_ns": [{"edgekd_p50": ours, "loadgen_p50": theirs} for ours, theirs in pairs],
        "ratios": [round(one, 4) for one in ratios],
        "median_ratio": round(ratio, 4),
        "agrees": long_enough and abs(ratio - 1) <= MAX_DIFFERENCE,
    }


def main(
    bundle: Path,
    target: Annotated[list[str] | None, typer.Option()] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 25,
    queries: Annotated[int, typer.Option(min=10)] = 200,
    seconds: Annotated[float, typer.Option(min=0)] = 0.5,
    out: Annotated[Path | None, typer.Option(help="JSON file.")] = None,
) -> None:
    """Compare medians and exit 1 where they differ by more than 5 %."""
    import_loadgen()
    opened = Bundle.open(bundle)
    results = [
        compare_with_loadgen(opened, one, rounds, StopRule(queries, seconds))
        for one in target or ["onnx", "openvino"]
    ]
    report = {"results": results, "environment": describe_environment()}
    text = json.dumps(report, indent=2) + "\n"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    for one in results:
        typer.echo(f"{one['target']}: {one['median_ratio']} of LoadGen's median, rounds {one['ratios']}")
    raise typer.Exit(int(not all(one["agrees"] for one in results)))


if __name__ == "__main__":
    typer.run(main)
