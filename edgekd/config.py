"""The choices of a training run: one frozen model for `train`, one for `distill`.

Precedence, lowest first: the defaults here, the file given by ``--config`` (TOML or JSON), the options of
the command line. Validation only validates: no value is changed, looked up or guessed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from edgekd.errors import UsageError
from edgekd.specs import FRAME_BITS, ClassSpec, CropBox, PreprocessSpec, Spec

Options = dict[str, int | float | str | bool]
Name = Annotated[str, Field(min_length=1)]


class AugmentConfig(Spec):
    """How far a training image is changed at random; 0 (False) switches a change off.

    Geometric changes fit a probe that is held a little differently: no vertical flip, because sound
    comes from above. Photometric ones fit another gain setting and more speckle.

    Attributes:
        flip: mirror left and right with probability 1/2.
        rotation_deg: largest turn either way, degrees.
        scale: largest relative change of size either way.
        translation: largest shift either way, as a part of the side.
        gain: largest relative change of brightness either way.
        gamma: largest exponent; drawn log-uniformly between its inverse and itself; 1 switches it off.
        noise: largest standard deviation of added Gaussian noise, as a part of the full range.
    """

    flip: bool = True
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 10.0
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    translation: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    gain: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    gamma: Annotated[float, Field(ge=1, le=4)] = 1.25
    noise: Annotated[float, Field(ge=0, le=0.5)] = 0.03


class SplitConfig(Spec):
    """How cases without a split of their own are divided; see ``edgekd.data.assign_splits``."""

    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    salt: Annotated[str, Field(min_length=1)] = "edgekd"


class FitConfig(Spec):
    """What training one network and distilling have in common.

    Attributes:
        image_size: height and width that frames are resized to, pixels.
        color, frame_dtype, crop: see PreprocessSpec.
        bits_stored: bits of a pixel that hold its value, 12 for the 12-bit frames of many devices, which are
            stored in 16; None takes all of ``frame_dtype``.
        classes: names of the classes, background first.
        batch_size: images a step, over all devices together.
        min_epoch_steps: an epoch is a pass over the training split, but at least so many steps: a small data
            set is passed several times, so that the epochs train as much as those of a larger one.
        views: an endless number of augmented views of a frame (0), or so many fixed ones in turn.
        lr: peak learning rate of the network (in `distill`: of the student and the control).
        truth_losses: terms and weights that compare with the truth, for every network.
        weight_decay: AdamW's decoupled decay, on weights only, never on norms and biases.
        warmup_fraction: part of the steps in which the rate rises, before it falls as a cosine to 0.
        precision: ``bf16`` needs a processor or GPU that computes in it; ``auto`` takes it where it is
            faster than float32: on a GPU, or a processor with AMX.
        accelerator: ``auto`` takes a CUDA GPU where there is one.
        devices, num_nodes: processes a machine and machines (DistributedDataParallel above one in all).
    """

    image_size: Annotated[int, Field(ge=32, le=2048)] = 256
    color: Literal["gray", "rgb"] = "gray"
    frame_dtype: Literal["uint8", "uint16"] = "uint8"
    bits_stored: Annotated[int | None, Field(ge=6, le=16)] = None
    crop: CropBox | None = None
    classes: ClassSpec = ClassSpec()
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    min_epoch_steps: Annotated[int, Field(ge=0, le=100_000)] = 0
    views: Annotated[int, Field(ge=0, le=10_000)] = 0
    lr: Annotated[float, Field(gt=0, le=1)] = 5e-3
    truth_losses: str = "ce:1,dice:1"
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-2
    warmup_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    augment: AugmentConfig = AugmentConfig()
    split: SplitConfig = SplitConfig()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    num_nodes: Annotated[int, Field(ge=1, le=1024)] = 1

    def build_preprocess(self) -> PreprocessSpec:
        """Return the specification of how frames become the network's input.

        Raises:
            UsageError: ``bits_stored`` does not fit ``frame_dtype``.
        """
        largest = FRAME_BITS[self.frame_dtype]
        bits = largest if self.bits_stored is None else self.bits_stored
        if not largest - 8 < bits <= largest:
            raise UsageError(
                f"frames of {self.frame_dtype} cannot hold values of {bits} bits alone",
                received=f"bits_stored {bits}",
                expected=f"at most {largest} and more than {largest - 8}",
                action="set frame_dtype and bits_stored to what the files hold; `edgekd data check` tells",
            )
        channels = 1 if self.color == "gray" else 3
        return PreprocessSpec(
            height=self.image_size,
            width=self.image_size,
            color=self.color,
            frame_dtype=self.frame_dtype,
            crop=self.crop,
            scale=1.0 / (2**bits - 1),
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
        )


class TrainConfig(FitConfig):
    """`edgekd train`: one network, alone.

    Attributes:
        model, model_options: the network by name, and options for its factory.
        lr: peak learning rate, lower than a student's because most often a teacher is trained so.
        epochs: passes over the training split.
        select: keep the weights of the best validation Dice, or the last ones.
    """

    model: Annotated[str, Field(min_length=1)] = "dynunet"
    model_options: Options = Field(default_factory=dict)
    lr: Annotated[float, Field(gt=0, le=1)] = 2e-3
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 60
    select: Literal["last", "best"] = "best"


class DistillConfig(FitConfig):
    """`edgekd distill`: phase 1 trains teacher and student side by side, in phase 2 the teacher teaches.

    Attributes:
        teacher: a network by name, or the folder of a finished run whose network then teaches as it is;
            several such folders for teachers whose probabilities are averaged.
        student: a network by name.
        teacher_options, student_options: options for the factories.
        epochs: passes over the training split in phase 1.
        distill_epochs: passes in phase 2; None takes as many as in phase 1.
        teacher_lr: peak learning rate of the teacher.
        losses: terms and weights that compare with the teacher, for the student in phase 2 alone.
        truth_weight: what ``truth_losses`` weigh for the student in phase 2, 1 being their own weights; 0
            leaves the teacher alone.
        temperature: softens both distributions in ``kl`` and ``zkl`` (Hinton et al., 2015).
        taps: features that ``at``, ``fitnet`` and ``fcwd`` compare: names such as ``enc16``, or pairs
            ``student=teacher`` of names or module paths, with commas between.
        boundary_weight: added to the weight of pixels at the edge of the teacher's mask in ``kl``, ``zkl``
            and ``tdice``.
        teacher_view: ``same`` shows the teacher the student's own view, ``plain`` the same view before gain,
            gamma and noise.
        teacher_mirror: average the teacher's answers to the view and to its mirror image; never where
            ``augment.flip = false`` says that left and right are not alike.
        unlabeled: folder of frames without masks, which the teacher labels for the student in phase 2: as
            many a step as there are frames with masks.
        mix: in phase 2 the student also learns from mixtures of two training frames each, which the teacher
            labels: as many a step as there are frames with masks. Phase 2 takes twice as long for it.
        confidence: on frames without a mask, pixels where the teacher's largest class probability is lower
            do not count in the losses on logits.
        store_answers: keep the teacher's answers on disk; needs ``views``, which are the ones kept.
        golden: a data set whose frames the bundle carries as its golden ones, real images then, instead of
            synthetic ultrasound.
        quantize: ``int8`` rounds weights and activations of student and control in the last epochs, so that
            they lose less when they are exported in int8.
        quantize_epochs: how many epochs of phase 2 these are; None takes half of them, in which the learning
            rate still moves the weights.
        select: weights kept of student and control alike: the last, or the best by validation Dice in
            phase 2. The learning rate has reached 0 at the last step, so the last weights are settled,
            and choosing the best of many epochs on a small validation split rewards luck.
    """

    teacher: Name | Annotated[tuple[Name, ...], Field(min_length=1)] = "dynunet"
    student: Annotated[str, Field(min_length=1)] = "unet-narrow"
    teacher_options: Options = Field(default_factory=dict)
    student_options: Options = Field(default_factory=dict)
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 60
    distill_epochs: Annotated[int | None, Field(ge=1, le=100_000)] = None
    teacher_lr: Annotated[float, Field(gt=0, le=1)] = 2e-3
    losses: str = "kl:1,tdice:1"
    truth_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    temperature: Annotated[float, Field(ge=1, le=100)] = 1.0
    taps: str = ""
    boundary_weight: Annotated[float, Field(ge=0, le=1000)] = 0.0
    teacher_view: Literal["same", "plain"] = "same"
    teacher_mirror: bool = True
    unlabeled: Name | None = None
    mix: bool = True
    confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    store_answers: bool = False
    golden: Name | None = None
    quantize: Literal["none", "int8"] = "none"
    quantize_epochs: Annotated[int | None, Field(ge=1, le=100_000)] = None
    select: Literal["last", "best"] = "last"

    def count_epochs(self) -> int:
        """Return the student's epochs in both phases."""
        return self.epochs + (self.epochs if self.distill_epochs is None else self.distill_epochs)

    def count_quantize_epochs(self) -> int:
        """Return the epochs that round, were ``quantize`` asked for."""
        if self.quantize_epochs is not None:
            return self.quantize_epochs
        return (self.count_epochs() - self.epochs + 1) // 2

    def list_teachers(self) -> tuple[str, ...]:
        """Return the teacher, or the teachers."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher


class Environment(NamedTuple):
    """What EdgeKD takes from environment variables of its own.

    Attributes:
        data: folder of real data sets for tests and suites (``EDGEKD_DATA``), None where unset.
    """

    data: Path | None


def read_environment() -> Environment:
    """Return EdgeKD's own settings in environment variables; nothing else in the package reads them."""
    data = os.environ.get("EDGEKD_DATA")
    return Environment(data=Path(data) if data else None)


def list_unset_variables(names: Iterable[str]) -> list[str]:
    """Return which of the environment variables ``names`` are unset or empty, in their order."""
    return [name for name in names if not os.environ.get(name)]
