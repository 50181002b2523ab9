"""The ``edgekd`` command: one function a verb, each parses, calls one function and answers.

Every import of a room stands inside its verb, so that ``--help`` loads neither NumPy nor an engine.
"""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import edgekd
from edgekd.console import Answer, answer_with, print_notice, run_app
from edgekd.options import (
    BatchOption,
    BatchSizeOption,
    BundleArgument,
    CacheOption,
    CalibrationOption,
    CertificateOption,
    ConfigOption,
    CriteriaOption,
    DataArgument,
    DataOption,
    DeadlineOption,
    DeviceOption,
    DevicesOption,
    DropOption,
    EpochsOption,
    FixedBatchOption,
    FixedSizeOption,
    FpsOption,
    ImageSizeOption,
    JitterOption,
    JunitOption,
    LearningRateOption,
    MarginsOption,
    MaxSecondsOption,
    MinQueriesOption,
    MinSecondsOption,
    NodesOption,
    OutOption,
    PrecisionOption,
    PrecisionsOption,
    PrecisionTrainOption,
    QueueOption,
    ReferenceOption,
    ResumeOption,
    RunOption,
    ScenariosOption,
    SeedOption,
    StabilityOption,
    StreamsOption,
    TargetsOption,
    ThreadsOption,
    TrainingSeedOption,
    VerifyOption,
)

app = typer.Typer(
    name="edgekd",
    help="From ultrasound images and masks to a distilled student in a verified engine on the device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make synthetic data, or check real data before training.", no_args_is_help=True)
TRAINING, DEPLOYMENT, TOOLS = "Train", "Deploy and judge", "Tools"
app.add_typer(data_app, name="data", rich_help_panel=TRAINING)


def _register(
    home: typer.Typer, name: str, panel: str | None = None
) -> Callable[[Callable[..., Answer | None]], Any]:
    return lambda verb: home.command(name, rich_help_panel=panel)(answer_with(verb))


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"edgekd {edgekd.__version__}")
        raise typer.Exit


@app.callback()
def _declare_root_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@_register(app, "demo", TRAINING)
def demo(
    out: Annotated[Path, typer.Option("--out", help="New folder for everything.")] = Path("demo"),
    seed: SeedOption = 0,
    quiet: bool = False,
) -> Answer:
    """The whole way on synthetic ultrasound: distil, export, parity, benchmark, report.html.

    Example: edgekd demo --out demo
    """
    from edgekd.demo import run_demo

    return run_demo(out, seed=seed, quiet=quiet)


@_register(data_app, "phantom")
def data_phantom(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="New folder for images/, masks/ and manifest.csv.")
    ],
    count: Annotated[int, typer.Option(min=1, help="Number of frames.")] = 200,
    seed: SeedOption = 0,
    quiet: bool = False,
) -> Answer:
    """Write synthetic B-mode ultrasound with lesion masks.

    Example: edgekd data phantom phantom --count 200
    """
    from edgekd.data import write_phantom

    write_phantom(out, count, seed, quiet=quiet)
    return Answer({"path": out, "cases": count}, lines=[f"{count} synthetic frames with masks in {out}"])


@_register(data_app, "check")
def data_check(
    data: DataArgument,
    classes: Annotated[
        int | None, typer.Option(min=2, max=255, help="Classes, background included; as in --config, or 2.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The file that distill will get: its splits, classes, frame depth and crop are judged."
        ),
    ] = None,
    quiet: bool = False,
) -> Answer:
    """Find a data set's faults before training on it; exits 1 where there are any.

    Example: edgekd data check DATA
    """
    from edgekd.answers import show_data_check
    from edgekd.config import DistillConfig
    from edgekd.config_reader import load_config
    from edgekd.data import check_dataset

    choices = load_config(DistillConfig, config)
    choices.build_preprocess()  # refuses what distill would refuse
    report = check_dataset(
        data,
        num_classes=choices.classes.count if classes is None else classes,
        fractions=choices.split.fractions,
        salt=choices.split.salt,
        frame_dtype=choices.frame_dtype,
        bits_stored=choices.bits_stored,
        crop=choices.crop,
        quiet=quiet,
    )
    return show_data_check(report)


@_register(app, "models", TRAINING)
def models(
    image_size: Annotated[
        int, typer.Option(min=32, max=2048, help="Size the MACs are counted at, pixels.")
    ] = 256,
) -> Answer:
    """List the networks with their parameters and multiply-accumulates.

    Example: edgekd models --image-size 128
    """
    from edgekd.answers import show_models
    from edgekd.models import describe_catalogue

    return show_models(describe_catalogue(image_size), image_size)


@_register(app, "train", TRAINING)
def train(
    data: DataArgument,
    model: Annotated[str | None, typer.Option(help="Catalogue name or package.module:factory.")] = None,
    out: RunOption = None,
    epochs: EpochsOption = None,
    image_size: ImageSizeOption = None,
    batch_size: BatchSizeOption = None,
    lr: LearningRateOption = None,
    precision: PrecisionTrainOption = None,
    config: ConfigOption = None,
    devices: DevicesOption = None,
    num_nodes: NodesOption = None,
    seed: TrainingSeedOption = None,
    resume: ResumeOption = False,
    quiet: bool = False,
) -> Answer | None:
    """Train one network, for example the teacher.

    Example: edgekd train DATA --model unet-wide --epochs 40 --out runs/teacher
    """
    from edgekd.answers import show_training
    from edgekd.config import TrainConfig
    from edgekd.config_reader import load_config
    from edgekd.distill import is_main_process, load_resumed_config
    from edgekd.distill import train as run_training

    settings = {
        "model": model,
        "epochs": epochs,
        "image_size": image_size,
        "batch_size": batch_size,
        "lr": lr,
    }
    machine = {"precision": precision, "devices": devices, "num_nodes": num_nodes, "seed": seed}
    options = settings | machine
    if resume:
        resolved = load_resumed_config(TrainConfig, _require_run(out), config, options)
    else:
        resolved = load_config(TrainConfig, config, options)
    place = _place_run(out, data, resolved.devices * resolved.num_nodes, quiet)
    with _explain_interrupt("train", data, place):
        result = run_training(resolved, data, place, resume=resume, quiet=quiet)
    return show_training(result) if is_main_process() else None


@_register(app, "distill", TRAINING)
def distill(
    data: DataArgument,
    out: RunOption = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(help="Network, or the folder of a finished run; several folders teach as one."),
    ] = None,
    student: Annotated[str | None, typer.Option(help="Network of the student.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="Losses to the teacher with weights, such as kl:1,cwd:3.")
    ] = None,
    taps: Annotated[
        str | None, typer.Option(help="Features to compare, such as enc16,dec4, or student=teacher.")
    ] = None,
    unlabeled: Annotated[
        Path | None, typer.Option(help="Folder of frames without masks, which the teacher labels.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the teacher's answers, with store_answers = true in --config; else in the run."
        ),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            help="Data set whose frames, not synthetic ones, travel in the bundle to check engines."
        ),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="int8: the last epochs round as int8 does, the teacher still teaching.")
    ] = None,
    control: Annotated[bool, typer.Option("--control", help="Also train it without the teacher.")] = False,
    epochs: EpochsOption = None,
    image_size: ImageSizeOption = None,
    batch_size: BatchSizeOption = None,
    lr: LearningRateOption = None,
    precision: PrecisionTrainOption = None,
    config: ConfigOption = None,
    devices: DevicesOption = None,
    num_nodes: NodesOption = None,
    seed: TrainingSeedOption = None,
    resume: ResumeOption = False,
    quiet: bool = False,
) -> Answer | None:
    """Train teacher and student, distil the best teacher into the student, write a bundle.

    Example: edgekd distill DATA --control
    """
    from edgekd.answers import show_distillation
    from edgekd.config import DistillConfig
    from edgekd.config_reader import load_config
    from edgekd.distill import distill as run_distillation
    from edgekd.distill import is_main_process, load_resumed_config

    networks = {"teacher": _join_teachers(teacher), "student": student}
    networks |= {
        "losses": loss,
        "quantize": quantize,
        "taps": taps,
        "unlabeled": None if unlabeled is None else str(unlabeled),
        "golden": None if golden is None else str(golden),
    }
    settings = {"epochs": epochs, "image_size": image_size, "batch_size": batch_size, "lr": lr}
    machine = {"precision": precision, "devices": devices, "num_nodes": num_nodes, "seed": seed}
    options = networks | settings | machine
    if resume:
        resolved = load_resumed_config(DistillConfig, _require_run(out), config, options)
    else:
        resolved = load_config(DistillConfig, config, options)
    if resolved.golden is not None:
        print_notice(
            "real images will travel in the bundle as golden frames: see that none shows a name, a date or "
            "other burnt-in text of a patient",
            quiet=quiet,
        )
    place = _place_run(out, data, resolved.devices * resolved.num_nodes, quiet)
    kept = [] if cache is None else ["--cache", str(cache)]
    with _explain_interrupt("distill", data, place, kept):
        result = run_distillation(
            resolved, data, place, control=control or None, resume=resume, cache=cache, quiet=quiet
        )
    return show_distillation(result) if is_main_process() else None


def _join_teachers(teachers: list[str] | None) -> str | tuple[str, ...] | None:
    return None if not teachers else teachers[0] if len(teachers) == 1 else tuple(teachers)


@_register(app, "evaluate", TRAINING)
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="A run folder or a bundle.")],
    data: DataArgument,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "test",
    record: Annotated[Path | None, typer.Option(help="Write masks and logits here, for `parity`.")] = None,
    quiet: bool = False,
) -> Answer:
    """Score a run or a bundle in PyTorch; with --record, keep its answers as the reference of parity.

    Example: edgekd evaluate RUN DATA --record reference.npz
    """
    from edgekd.answers import show_scores
    from edgekd.distill import evaluate as run_evaluation

    return show_scores(run_evaluation(model, data, split=split, record=record, quiet=quiet))


@_register(app, "export", DEPLOYMENT)
def export(
    bundle: BundleArgument = None,
    target: TargetsOption = None,
    precision: PrecisionsOption = None,
    sm: Annotated[list[str] | None, typer.Option(help="GPU to compile for, such as 87; repeatable.")] = None,
    calib: CalibrationOption = None,
    frame_size: FixedSizeOption = None,
    batch: FixedBatchOption = None,
    device: Annotated[
        str | None,
        typer.Option(help="What builds are for: CPU (where absent); OpenVINO GPU or NPU; ONNX in fp16 GPU."),
    ] = None,
    min_shapes: Annotated[
        str | None, typer.Option(help="TensorRT: smallest batch, as trtexec has it: image:1x1x256x256.")
    ] = None,
    opt_shapes: Annotated[str | None, typer.Option(help="TensorRT: batch to tune for.")] = None,
    max_shapes: Annotated[str | None, typer.Option(help="TensorRT: largest batch.")] = None,
    workspace: Annotated[int | None, typer.Option(help="TensorRT: scratch memory at most, MiB.")] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT: loadable by later minor versions.")
    ] = False,
    hardware_compatible: Annotated[
        str, typer.Option(help="TensorRT: other GPUs: none, ampere+ or sameComputeCapability.")
    ] = "none",
    dla_core: Annotated[int | None, typer.Option(hidden=True)] = None,
    quiet: bool = False,
) -> Answer:
    """Build engines from a bundle: ONNX graphs, OpenVINO IR, TensorRT engine with its CUDA preprocessing.

    Example: edgekd export --target tensorrt --target openvino
    """
    from edgekd.answers import show_builds
    from edgekd.bundle import Bundle
    from edgekd.export import TensorRtOptions, export_bundle
    from edgekd.export.fixed_shapes import read_options

    options = TensorRtOptions(
        min_shapes, opt_shapes, max_shapes, workspace, version_compatible, hardware_compatible, dla_core
    )
    opened = Bundle.open(_choose_bundle(bundle, quiet))
    builds = export_bundle(
        opened,
        target or (),
        precision or ("fp32",),
        sm=sm,
        calib=calib,
        shapes=read_options(batch, frame_size),
        tensorrt=options,
        device=device,
        quiet=quiet,
    )
    return show_builds(opened, builds)


@_register(app, "parity", DEPLOYMENT)
def parity(
    bundle: BundleArgument = None,
    data: DataOption = None,
    reference: Annotated[
        Path | None, typer.Option(help="Recording of the PyTorch student; the run's own where absent.")
    ] = None,
    target: TargetsOption = None,
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    cache: CacheOption = None,
    config: CriteriaOption = None,
    margin: MarginsOption = None,
    out: OutOption = None,
    junit: JunitOption = None,
    certificate: CertificateOption = None,
    verify: VerifyOption = None,
    seed: SeedOption = 0,
    quiet: bool = False,
) -> Answer:
    """Check that exported engines agree with the validated student; exits 1 where one does not.

    Example: edgekd parity BUNDLE --data DATA --config parity.toml --out parity
    """
    from edgekd.answers import show_certificate, show_parity
    from edgekd.benchmarks import check_certificate, keep_junit, parse_margins, run_parity
    from edgekd.bundle import Bundle

    with keep_junit(junit):
        if verify is not None:
            gate = {"data": data, "reference": reference, "target": target, "precision": precision}
            gate |= {"device": device, "cache": cache, "config": config, "margin": margin, "out": out}
            gate |= {"certificate": certificate, "seed": None if seed == 0 else seed}
            _refuse_beside_verify(gate)
            opened = Bundle.open(_choose_bundle(bundle, quiet))
            return show_certificate(check_certificate(verify, opened, junit=junit))
        chosen = _choose_bundle(bundle, quiet)
        report = run_parity(
            chosen,
            data=data,
            reference=reference,
            targets=target,
            precision=precision,
            device=device,
            cache=cache,
            config=config,
            margins=parse_margins(margin or ()),
            out=out,
            junit=junit,
            certificate=certificate,
            seed=seed,
            quiet=quiet,
        )
    return show_parity(report)


@_register(app, "benchmark", DEPLOYMENT)
def benchmark(
    bundle: BundleArgument = None,
    data: DataOption = None,
    reference: ReferenceOption = None,
    target: TargetsOption = None,
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    gate: Annotated[bool, typer.Option("--gate/--no-gate", help="Judge the engines too.")] = True,
    min_queries: MinQueriesOption = None,
    min_seconds: MinSecondsOption = 3.0,
    stability: StabilityOption = None,
    max_seconds: MaxSecondsOption = None,
    scenario: ScenariosOption = None,
    streams: StreamsOption = 4,
    batch: BatchOption = 8,
    fps: FpsOption = None,
    jitter: JitterOption = 0.0,
    queue: QueueOption = 2,
    drop: DropOption = "oldest",
    deadline_ms: DeadlineOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    quiet: bool = False,
) -> Answer:
    """Judge and time the engines: parity, load, first frame, steady state, frames in time, energy.

    With --data and a recording of the student the gate is the full one, else agreement on golden frames.
    Exits 1 where it says no. Ctrl-C keeps what was measured.

    Example: edgekd benchmark BUNDLE --data DATA --reference reference.npz --fps 30 --out report
    """
    from edgekd.answers import show_acceptance
    from edgekd.benchmarks import PaceConfig, ScenarioConfig, StopRule, run_acceptance

    chosen = _choose_bundle(bundle, quiet)
    paces = tuple(
        PaceConfig(rate, jitter, queue, drop, deadline_ms, seed)  # type: ignore[arg-type]
        for rate in fps or (30.0,)
    )
    report = run_acceptance(
        chosen,
        data=data,
        reference=reference,
        targets=target,
        precision=precision,
        device=device,
        threads=threads,
        rule=StopRule(min_queries, min_seconds, stability, max_seconds),
        scenarios=ScenarioConfig(tuple(scenario or ("single-stream", "paced")), streams, batch, paces),
        gate=gate,
        seed=seed,
        out=out,
        cache=cache,
        quiet=quiet,
    )
    return show_acceptance(report)


@_register(app, "compare", DEPLOYMENT)
def compare(
    reports: Annotated[
        list[Path],
        typer.Argument(metavar="REPORT", help="Result folders or JSON files, the first is the baseline."),
    ],
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, help="Loss of Dice, mIoU or kappa accepted; of Acc a fifth.")
    ] = 0.005,
    max_slowdown: Annotated[
        float, typer.Option(min=0, help="Slowdown accepted, as a part of the baseline.")
    ] = 0.10,
    out: OutOption = None,
) -> Answer:
    """Put reports of several devices or releases side by side; exits 1 where one is worse than the first.

    Example: edgekd compare release-1/ release-2/ --out change
    """
    from edgekd.answers import show_comparison
    from edgekd.atomic import check_output_is_new
    from edgekd.benchmarks import compare_reports, write_comparison

    if out is not None:
        check_output_is_new(out)
    comparison = compare_reports(reports, max_drop=max_drop, max_slowdown=max_slowdown)
    if out is not None:
        write_comparison(out, comparison)
    return show_comparison(comparison)


@_register(app, "predict", DEPLOYMENT)
def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle with at least one build.")],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An image, or a folder of images.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for masks and overlays.")],
    target: Annotated[
        str | None,
        typer.Option(
            "--target", "-t", help="Engine; else a float32 build that runs, or another one, which is said."
        ),
    ] = None,
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    cache: CacheOption = None,
    quiet: bool = False,
) -> Answer:
    """Segment images with an exported engine: masks at frame size, and overlays to look at.

    Example: edgekd predict BUNDLE images/ --out predictions
    """
    from edgekd.answers import show_predictions
    from edgekd.benchmarks import run_prediction

    options = {"target": target, "precision": precision, "device": device}
    return show_predictions(run_prediction(bundle, source, out, **options, cache=cache, quiet=quiet))


@_register(app, "inspect", TOOLS)
def inspect(bundle: BundleArgument = None, quiet: bool = False) -> Answer:
    """Show what a bundle holds, after checking every hash.

    Example: edgekd inspect runs/…/student.edgekd
    """
    from edgekd.answers import show_bundle
    from edgekd.bundle import Bundle, list_builds

    opened = Bundle.open(_choose_bundle(bundle, quiet))
    builds = list_builds(opened)
    for build in builds:
        build.check_files()
    return show_bundle(opened, builds)


@_register(app, "doctor", TOOLS)
def doctor() -> Answer:
    """What this machine can run, what is missing, and the command that adds it.

    Example: edgekd doctor --json
    """
    from edgekd.answers import show_doctor
    from edgekd.doctor import examine_machine

    return show_doctor(examine_machine())


def _choose_bundle(named: Path | None, quiet: bool) -> Path:
    if named is not None:
        return named
    from edgekd.runs import find_last_bundle

    found = find_last_bundle()
    print_notice(f"no bundle was named: taking the last run of this folder, {found}", quiet=quiet)
    return found


def _refuse_beside_verify(options: Mapping[str, object]) -> None:
    from edgekd.errors import UsageError

    given = [f"--{name}" for name, value in options.items() if value is not None and value != []]
    if given:
        raise UsageError(
            "--verify runs no gate, so it takes no option of one",
            received=", ".join(given),
            expected="--verify alone, or with --junit",
            action="leave these out: what the certificate is bound to stands in it",
        )


def _require_run(named: Path | None) -> Path:
    from edgekd.errors import UsageError

    if named is None:
        raise UsageError("--resume needs the run to go on with", action="name it: --out RUN --resume")
    return named


def _place_run(named: Path | None, data: Path, processes: int, quiet: bool) -> Path:
    if named is not None:
        return named
    from edgekd.errors import UsageError
    from edgekd.runs import name_new_run

    if processes > 1:
        # Each process would choose a name of its own.
        raise UsageError(f"{processes} processes need one run folder", action="name it: --out RUN")
    place = name_new_run(data.resolve().stem)
    print_notice(f"this run goes to {place}", quiet=quiet)
    return place


@contextlib.contextmanager
def _explain_interrupt(verb: str, data: Path, place: Path, options: Sequence[str] = ()) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not place.exists():
            raise
        command = shlex.join(["edgekd", verb, str(data), "--out", str(place), *options, "--resume"])
        raise KeyboardInterrupt(f"interrupted, the run is kept. Next: {command}") from interrupt


def main() -> None:
    """Run the command line; never returns."""
    sys.exit(run_app(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
