"""The options and arguments that several verbs share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

DataArgument = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder with images/ and masks/, a BUSI-like folder, or a CSV.")
]
BundleArgument = Annotated[
    Path | None,
    typer.Argument(metavar="BUNDLE", help="A bundle, NAME.edgekd; the last run of this folder where absent."),
]
RunOption = Annotated[Path | None, typer.Option("--out", help="Run folder; runs/<date>-<data> where absent.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="New folder for the results and a report.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")]
TrainingSeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of every random choice.")]
EpochsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Passes over the training part, 60 where absent; in distill, of each phase."),
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option(
        min=32, max=2048, help="Side of the input, pixels, 256 where absent; a multiple of 16 or 32."
    ),
]
BatchSizeOption = Annotated[int | None, typer.Option(min=1, help="Images a step, 8 where absent.")]
LearningRateOption = Annotated[
    float | None, typer.Option("--lr", help="Peak learning rate; 2e-3 in train, 5e-3 of the student.")
]
ConfigOption = Annotated[Path | None, typer.Option(help="TOML or JSON file; options given here win over it.")]
PrecisionTrainOption = Annotated[str | None, typer.Option("--precision", help="auto, fp32 or bf16.")]
DevicesOption = Annotated[int | None, typer.Option(min=1, help="GPUs or processes a machine.")]
NodesOption = Annotated[int | None, typer.Option("--num-nodes", min=1, help="Machines, by torchrun.")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with an interrupted run, by its own choices.")
]
TargetsOption = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="onnx, openvino, tensorrt or tensorrt-rtx; may be repeated."),
]
PrecisionsOption = Annotated[
    list[str] | None,
    typer.Option("--precision", "-p", help="fp32 (where absent), fp16, bf16 or int8; repeatable."),
]
PrecisionOption = Annotated[str | None, typer.Option("--precision", "-p", help="Only builds of this one.")]
DeviceOption = Annotated[str | None, typer.Option(help="CPU, GPU or NPU; the build's own where absent.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Processor threads of the engine.")]
CriteriaOption = Annotated[
    Path | None, typer.Option("--config", help="TOML or JSON file with the gate's criteria, parity.toml.")
]
MarginsOption = Annotated[
    list[str] | None, typer.Option("--margin", help="Largest loss of a score, dice=0.01; may be repeated.")
]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", help="New JUnit XML file; written on an error too.")
]
CertificateOption = Annotated[
    Path | None,
    typer.Option("--certificate", help="New file for a certificate, where every build that ran passed."),
]
VerifyOption = Annotated[
    Path | None, typer.Option("--verify", help="Run no gate: check that this certificate still holds here.")
]
FixedSizeOption = Annotated[
    str | None,
    typer.Option("--frame-size", help="Only frames of HEIGHTxWIDTH, such as 768x1024; any where absent."),
]
FixedBatchOption = Annotated[
    int | None, typer.Option("--batch", help="Only so many frames a run; any number where absent.")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        help="Data set that int8 is made, and int8, fp16 and bf16 are judged with: the student's own."
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder where OpenVINO and TensorRT-RTX keep what they compile at loading."),
]
DataOption = Annotated[Path | None, typer.Option("--data", help="Data set; golden frames where absent.")]
ReferenceOption = Annotated[
    Path | None, typer.Option("--reference", help="Recording of the student; the run's own where absent.")
]
MinQueriesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Frames timed at least: 200 where absent, and 100 of frames that come in time."),
]
MinSecondsOption = Annotated[float, typer.Option(min=0, help="Seconds timed at least.")]
StabilityOption = Annotated[
    float | None, typer.Option(help="Go on until the median is known to ± this part of itself: 0.01.")
]
MaxSecondsOption = Annotated[
    float | None, typer.Option(min=0, help="Where waiting for --stability ends: 60 where absent.")
]
ScenariosOption = Annotated[
    list[str] | None,
    typer.Option(help="single-stream, paced, multi-stream or offline; repeatable. Default: the first two."),
]
StreamsOption = Annotated[int, typer.Option(min=1, help="Frames a query in multi-stream.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Frames a query in offline.")]
PACED = "Paced frames"
FpsOption = Annotated[
    list[float] | None, typer.Option(help="Frames a second; repeatable. Default: 30.", rich_help_panel=PACED)
]
JitterOption = Annotated[
    float, typer.Option(help="Arrivals move by up to this part of a period.", rich_help_panel=PACED)
]
QueueOption = Annotated[int, typer.Option(min=1, help="Frames that can wait.", rich_help_panel=PACED)]
DropOption = Annotated[
    str, typer.Option(help="Frame dropped when all places are taken: oldest, newest.", rich_help_panel=PACED)
]
DeadlineOption = Annotated[
    float | None,
    typer.Option(help="A mask later than this is a miss; one period where absent.", rich_help_panel=PACED),
]
