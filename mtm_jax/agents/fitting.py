"""Training from Python: trajectories and settings in, an agent out.

    agent = mtm_jax.train(trajectories, mtm_jax.PretrainConfig(model=...))

The command `experiments.pretrain` does the same and also validates, logs, saves and resumes.
"""

from __future__ import annotations

import jax

from mtm_jax.agents import agent as agent_lib
from mtm_jax.agents import pretrained
from mtm_jax.config import ModelConfig, PretrainConfig
from mtm_jax.data import inspection
from mtm_jax.errors import UserError
from mtm_jax.io import progress
from mtm_jax.models.trajectory_model import make_model
from mtm_jax.training import dataset, pretrain, program
from mtm_jax.types import Trajectories

CALL = 50  # steps of a compiled call, between which the progress bar moves


def train(
    trajectories: Trajectories,
    config: PretrainConfig,
    seed: int = 0,
    history: int | None = None,
) -> agent_lib.Agent:
    """Train a masked trajectory model on all of the trajectories.

    Args:
        trajectories: of `load_data` or `trajectories_from_arrays`.
        config: the model, its masks, loss and optimiser, whose total_steps are trained.
        seed: of the initial parameters, batches, masks and dropout.
        history: past steps in view when the agent acts; by default 4, if the window has room.

    Raises:
        UserError: the modalities are not those of the data, the window is longer than every
            episode, or the loss is no longer finite.
    """
    window = config.model.window
    data = dataset.make_dataset(trajectories, window)
    _check_widths(config.model, data)
    stats, model = dataset.compute_stats(data), make_model(config.model)
    training = pretrain.make_training(config, model, stats)
    state = _run(training, data, config.optim.total_steps, seed)
    returns = inspection.returns(trajectories)
    known = len(returns) > 0
    found = pretrained.Pretrained(
        model=model,
        params=pretrain.acting(state),
        stats=stats,
        info=trajectories.info,
        returns=pretrained.ReturnSummary(
            best=float(returns.max()) if known else None,
            mean=float(returns.mean()) if known else None,
        ),
        history=min(4, window - 1) if history is None else history,
        step=config.optim.total_steps,
    )
    return agent_lib.of(found)


def _run(
    training: program.Training, data: dataset.Dataset, total: int, seed: int
) -> pretrain.TrainState:
    """Train to the last step, under a progress bar."""
    compiled = program.make_program(training)
    state, step = compiled.init(jax.random.key(seed)), 0
    with progress.progress(total, "training") as bar:
        while step < total:
            length = min(CALL, total - step)
            state, metrics = compiled.run(state, data, length)
            step += length
            _check_finite(step, metrics)
            bar.update(step, f"loss {float(metrics['train/loss']):.3f}")
    return state


def _check_widths(config: ModelConfig, data: dataset.Dataset) -> None:
    """Hold the modalities of a model to the data."""
    for spec in config.modalities:
        dims = data.values[spec.name].shape[1]
        given = spec.tokens_per_step if spec.head == "categorical" else spec.features
        if given != dims:
            raise UserError(
                f"the model's {spec.name} have {given} dimensions, and those of the data have "
                f"{dims}; write ModalitySpec({spec.name!r}, {dims})"
            )


def _check_finite(step: int, metrics: program.Metrics) -> None:
    if not float(metrics[program.FINITE]):
        raise UserError(
            f"the training is not finite any more by step {step}, with a loss of "
            f"{float(metrics['train/loss'])}; lower optim.learning_rate"
        )
