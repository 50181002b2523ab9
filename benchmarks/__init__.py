"""Judging engines on the device: latency, parity, reports, comparison, prediction. Never torch."""

from edgekd.benchmarks.acceptance import AcceptanceReport, run_acceptance
from edgekd.benchmarks.benchmark import BenchmarkReport, run_benchmark
from edgekd.benchmarks.certificate import CertificateCheck, check_certificate, write_certificate
from edgekd.benchmarks.compare import Comparison, compare_reports, write_comparison
from edgekd.benchmarks.criteria import GateConfig, parse_margins
from edgekd.benchmarks.environment import describe_conditions, describe_environment
from edgekd.benchmarks.gate import run_parity
from edgekd.benchmarks.golden import GoldenResult, compare_golden, segment_golden
from edgekd.benchmarks.junit import keep_junit
from edgekd.benchmarks.latency import measure_latency
from edgekd.benchmarks.latency_result import LatencyResult
from edgekd.benchmarks.overlays import Overlay, draw_overlay, list_legend
from edgekd.benchmarks.pacing import PaceConfig
from edgekd.benchmarks.parity import ParityResult, compare_recordings
from edgekd.benchmarks.parity_report import ParityReport, write_parity
from edgekd.benchmarks.predict import PredictionReport, predict_folder, run_prediction
from edgekd.benchmarks.recording import record_segmenter
from edgekd.benchmarks.report import write_report
from edgekd.benchmarks.scenarios import ScenarioConfig
from edgekd.benchmarks.stopping import StopRule

__all__ = [
    "AcceptanceReport",
    "BenchmarkReport",
    "CertificateCheck",
    "Comparison",
    "GateConfig",
    "GoldenResult",
    "LatencyResult",
    "Overlay",
    "PaceConfig",
    "ParityReport",
    "ParityResult",
    "PredictionReport",
    "ScenarioConfig",
    "StopRule",
    "check_certificate",
    "compare_golden",
    "compare_recordings",
    "compare_reports",
    "describe_conditions",
    "describe_environment",
    "draw_overlay",
    "keep_junit",
    "list_legend",
    "measure_latency",
    "parse_margins",
    "predict_folder",
    "record_segmenter",
    "run_acceptance",
    "run_benchmark",
    "run_parity",
    "run_prediction",
    "segment_golden",
    "write_certificate",
    "write_comparison",
    "write_parity",
    "write_report",
]
