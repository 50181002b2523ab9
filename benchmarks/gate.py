"""The parity gate: run a bundle's builds and compare each with its reference."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekd.atomic import check_output_is_new, write_text_atomic
from edgekd.benchmarks.certificate import write_certificate
from edgekd.benchmarks.criteria import GateConfig, replace_margins
from edgekd.benchmarks.environment import describe_environment
from edgekd.benchmarks.judged_builds import judge_cases, judge_golden
from edgekd.benchmarks.junit import build_junit
from edgekd.benchmarks.overlays import list_legend
from edgekd.benchmarks.parity import check_same_bundle
from edgekd.benchmarks.parity_report import ParityReport, write_parity
from edgekd.benchmarks.selection import choose_builds, format_command
from edgekd.bundle import Bundle, Recording, load_recording
from edgekd.config_reader import load_config
from edgekd.console import print_notice
from edgekd.errors import InputError, UsageError
from edgekd.interrupts import check_interrupt

REFERENCE_FILE = "reference.npz"


def run_parity(
    bundle: Bundle | Path,
    *,
    data: Path | None = None,
    reference: Path | Recording | None = None,
    targets: Sequence[str] | None = None,
    precision: str | None = None,
    device: str | None = None,
    margins: Mapping[str, float] | None = None,
    config: GateConfig | Path | None = None,
    seed: int = 0,
    out: Path | None = None,
    junit: Path | None = None,
    certificate: Path | None = None,
    cache: Path | None = None,
    quiet: bool = False,
) -> ParityReport:
    """Compare builds of a bundle with its PyTorch student, on data or on the golden frames.

    Args:
        bundle: an opened bundle or its path.
        data: the data set the reference was recorded from; None compares golden frames.
        reference: the student's recording; None takes ``reference.npz`` beside the bundle.
        targets: builds to compare; empty takes every build that can run here and lists the others.
        precision, device: narrow the builds; None takes all, each on its own device.
        margins: largest loss accepted, by score; what it leaves out is as in ``config``.
        config: the criteria, or the TOML or JSON file that holds them; None takes the defaults.
        seed: of the bootstrap.
        out: new folder for the files of ``write_parity``; None writes nothing.
        junit: new file for the verdicts as JUnit XML.
        certificate: new file, written only where every build that ran passed on data.
        cache: where an engine may keep compiled code.
        quiet: no progress bars.

    Raises:
        UsageError: ``out`` exists or cannot be written, or a reference is given without data.
        InputError: no reference, data that does not hold its cases, or frames of a size that a named build,
            or any build, does not take.
        IntegrityError: the reference belongs to another bundle or other files.
        MachineError: a named target cannot run here, or no build can.
        GateFailure: there is nothing to compare.
    """
    for path in (out, junit, certificate):
        if path is not None:
            check_output_is_new(path)
    if certificate is not None and data is None:
        raise UsageError(
            "golden frames alone give no certificate",
            expected="--data, the data set the reference was recorded from",
            action="add it",
        )
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if data is None and reference is not None:
        raise UsageError(
            "a reference without its data",
            expected="--data, the data set it was recorded from",
            action="add it",
        )
    criteria = replace_margins(_read_criteria(config), margins or {})
    options = {"data": data, "target": targets, "precision": precision, "device": device}
    options |= {"cache": cache, "config": config if isinstance(config, Path) else None}
    options |= {"reference": None if isinstance(reference, Recording) else reference}
    options |= {"margin": [f"{name}={margin:g}" for name, margin in (margins or {}).items()], "seed": seed}
    choices, skipped = choose_builds(opened, targets or (), precision, device)
    if certificate is not None:
        # It vouches for every file, not only for those that an engine reads.
        for choice in choices:
            choice.find_build(opened).check_files()
    if data is None:
        judged = judge_golden(opened, choices, criteria, cache)
    else:
        recorded = _find_reference(opened, reference)
        judged = judge_cases(
            opened,
            choices,
            recorded,
            data,
            criteria,
            seed=seed,
            named=bool(targets),
            cache=cache,
            quiet=quiet,
        )
    check_interrupt()
    report = ParityReport(
        bundle=str(opened.path),
        manifest_sha256=opened.manifest_sha256,
        data=None if data is None else str(data),
        data_sha256=judged.data_sha256,
        reference=judged.reference,
        reference_sha256=judged.reference_sha256,
        cases_learned_from=judged.cases_learned_from,
        criteria=criteria,
        results=tuple(judged.results),
        skipped=(*skipped, *judged.misfits),
        builds=tuple(judged.builds),
        environment=describe_environment(),
        command=format_command("parity", opened.path, options),
        overlays=tuple(judged.overlays),
        legend=tuple(list_legend(opened.manifest.classes, has_truth=True)),
    )
    if out is not None:
        write_parity(out, report)
    if junit is not None:
        write_text_atomic(junit, build_junit(report.to_dict()))
    if certificate is not None and report.passed:
        write_certificate(certificate, report)
    elif certificate is not None:
        print_notice(f"no certificate was written to {certificate}: not every build passed", quiet=quiet)
    return report


def _read_criteria(config: GateConfig | Path | None) -> GateConfig:
    return config if isinstance(config, GateConfig) else load_config(GateConfig, config)


def _find_reference(bundle: Bundle, reference: Path | Recording | None) -> Recording:
    if isinstance(reference, Recording):
        recorded = reference
    else:
        path = bundle.path.parent / REFERENCE_FILE if reference is None else reference
        if reference is None and not path.is_file():
            command = shlex.join(["edgekd", "evaluate", str(bundle.path), "DATA", "--record", str(path)])
            raise InputError(
                f"no reference to compare with, and no {path} beside the bundle",
                expected="a recording of the PyTorch student on the data",
                action=f"on the workstation: {command}",
            )
        recorded = load_recording(path)
    check_same_bundle(recorded.manifest_sha256, bundle.manifest_sha256)
    return recorded
