"""Training: losses, augmentation, the schedule, the one visible loop, and the bundle it ends with."""

from edgekd.distill.devices import is_main_process
from edgekd.distill.distillation import distill
from edgekd.distill.evaluate import EvaluationResult, evaluate
from edgekd.distill.gain import describe_gain
from edgekd.distill.identity import load_resumed_config
from edgekd.distill.predict import (
    pick_masks,
    predict_logits,
    predict_masks,
    predict_recording,
    score_network,
)
from edgekd.distill.results import (
    DistillResult,
    NetworkResult,
    RunRecord,
    TrainedNetwork,
    TrainResult,
    load_trained_model,
)
from edgekd.distill.training import train

__all__ = [
    "DistillResult",
    "EvaluationResult",
    "NetworkResult",
    "RunRecord",
    "TrainResult",
    "TrainedNetwork",
    "describe_gain",
    "distill",
    "evaluate",
    "is_main_process",
    "load_resumed_config",
    "load_trained_model",
    "pick_masks",
    "predict_logits",
    "predict_masks",
    "predict_recording",
    "score_network",
    "train",
]
