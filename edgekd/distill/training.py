"""`train`: one network, alone."""

from __future__ import annotations

from pathlib import Path

from edgekd.atomic import write_bytes_atomic
from edgekd.config import TrainConfig
from edgekd.distill.checkpoints import load_learner
from edgekd.distill.devices import explain_lost_process
from edgekd.distill.finish import build_run_record, describe_trained, pack_weights
from edgekd.distill.inputs import Inputs, check_can_choose
from edgekd.distill.learner import load_weights
from edgekd.distill.loop import Phase
from edgekd.distill.objective import parse_terms
from edgekd.distill.results import TrainResult, read_record, write_record
from edgekd.distill.session import Session, check_share_of_one, describe_network, open_session
from edgekd.specs import ModelSpec

MODEL_FILE = "model.safetensors"


def train(
    config: TrainConfig, data: Path, out: Path, *, resume: bool = False, quiet: bool = False
) -> TrainResult:
    """Train one network alone; write ``model.safetensors`` and ``result.json`` to ``out``.

    Args:
        config: the choices.
        data: a data set in any layout of ``edgekd.data.find_cases``.
        out: the run folder, new unless ``resume``.
        resume: continue an interrupted run; the weights will be those of an uninterrupted one, bit for
            bit on the same processor and thread count. A finished run is returned as it is.
        quiet: show no bars, and write no line an epoch where there is no terminal.

    Raises:
        UsageError, InputError, MachineError: see ``open_session``; UsageError also for a diverging loss.
        KeyboardInterrupt: Ctrl-C; the run can be continued.
    """
    terms = parse_terms(config.truth_losses, needs_teacher=False)
    model = describe_network(config.model, config.model_options, config)

    def check_inputs(inputs: Inputs) -> None:
        check_share_of_one([model], config, inputs)
        if config.select == "best":
            check_can_choose(inputs.splits["val"])

    session = open_session(
        config, data, out, {"kind": "train"}, resume=resume, quiet=quiet, check_inputs=check_inputs
    )
    if session is not None:
        with explain_lost_process(session.fabric):
            _train(session, config, terms, model)
    return TrainResult(out, read_record(out))


def _train(session: Session, config: TrainConfig, terms: dict[str, float], model: ModelSpec) -> None:
    learner = session.build_learner("model", model, terms=terms, peak_lr=config.lr, epochs=config.epochs)
    if session.checkpoint is not None:
        load_learner(session.checkpoint, learner)
    session.run(Phase(1, config.epochs, [learner]))
    if session.fabric.is_global_zero:
        weights, epoch = learner.pick_weights(config.select)
        load_weights(learner.network, weights)
        write_bytes_atomic(session.out / MODEL_FILE, pack_weights(learner.network))
        last = config.epochs if epoch is None else epoch + 1
        fact = describe_trained(session, learner.network, model, MODEL_FILE, last)
        write_record(session.out, build_run_record(session, "train", {"model": fact}, model))
    session.fabric.barrier()
