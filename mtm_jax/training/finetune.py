"""Online finetuning: the model on whole episodes, its critic on transitions, in one program.

One step is an update of the model, on windows of the best offline and of the online episodes, and
`critic_updates` of the critic, on offline and online transitions (M3PC section 5.3). The model
learns every modality with the loss of its pretraining; the released code trains states and actions
alone here (F1), and its critic never hears of terminals (F2).
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from mtm_jax.config import FinetuneConfig
from mtm_jax.models.trajectory_model import Model
from mtm_jax.training import dataset, iql, objective, pretrain, replay
from mtm_jax.training.program import Metrics, Training


class Memories(flax.struct.PyTreeNode):
    """What is learnt from."""

    episodes: replay.Episodes
    steps: replay.Steps  # collected online
    offline: dataset.Dataset


class State(flax.struct.PyTreeNode):
    """Everything that a restart of the learner needs, besides the memories."""

    model: pretrain.TrainState
    critic: iql.IQLState
    step: Array  # updates of the model, [] int32


def make_training(config: FinetuneConfig, model: Model, stats: objective.Stats) -> Training:
    """Describe the finetuning of a model; its data are `Memories`.

    A restart begins with `begin` and not with what `Training.init` draws.
    """

    def init(key: Array) -> State:
        model_key, critic_key = jax.random.split(key)
        obs, actions = (stats[m].mean.shape[0] for m in ("states", "actions"))
        critic = iql.init_state(critic_key, config.critic, obs, actions)
        return State(pretrain.init(config.model, model, model_key), critic, jnp.int32(0))

    return Training(init, functools.partial(step, config, model, stats), shared=config)


def begin(fresh: State, params: dict, critic: iql.IQLState) -> State:
    """Start from a pretrained model and its critic.

    Args:
        fresh: of `Training.init`, whose optimiser of the model is kept.
        params: of the model, those that act.
        critic: with its optimiser.
    """
    # Copies: the program computes in place, so that no two of its arrays may be one.
    params, average, critic = jax.tree.map(
        jnp.copy, (params, None if fresh.model.average is None else params, critic)
    )
    return fresh.replace(model=fresh.model.replace(params=params, average=average), critic=critic)


def step(
    config: FinetuneConfig,
    model: Model,
    stats: objective.Stats,
    state: State,
    memories: Memories,
) -> tuple[State, Metrics]:
    """Update the model once, and then the critic `critic_updates` times."""
    optim, loss = config.model.optim, config.model.loss
    learner, metrics = pretrain.step(
        *(config.model, model, stats, state.model, memories.episodes),
        *(optim.learning_rate, loss.entropy_target),
        sample=replay.sample_windows,
    )
    critic, of_critic = update_critic(config, stats["states"], state.critic, memories)
    return State(learner, critic, state.step + 1), metrics | of_critic


def update_critic(
    config: FinetuneConfig, stats: objective.Stats, critic: iql.IQLState, memories: Memories
) -> tuple[iql.IQLState, Metrics]:
    """Update the critic `critic_updates` times; metrics are means over these."""
    if config.critic_updates == 0:
        return critic, {}

    def once(critic: iql.IQLState, _: None) -> tuple[iql.IQLState, Metrics]:
        key = jax.random.fold_in(critic.key, critic.step)
        batch = replay.sample_transitions(
            *(key, memories.offline, memories.steps),
            *(config.critic.batch_size, config.online_after),
        )
        return iql.update(critic, config.critic, stats, batch)

    critic, metrics = jax.lax.scan(once, critic, None, length=config.critic_updates)
    return critic, jax.tree.map(lambda x: x.mean(0), metrics)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def remember(
    episodes: replay.Episodes, steps: replay.Steps, episode: replay.Episode
) -> tuple[replay.Episodes, replay.Steps]:
    """Put a finished episode into both memories."""
    return replay.add_episode(episodes, episode), replay.add_steps(steps, episode)
