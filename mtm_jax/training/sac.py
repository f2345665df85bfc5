"""Soft actor-critic (Haarnoja et al. 2018): trains the behaviour policies of the built-in data.

One update: draw a batch -> twin-Q target with the entropy bonus -> critic step -> actor step
-> temperature step towards an entropy of -A -> averages of target critic and actor.
The replay buffer lives on the device; the environment does not (`experiments/behaviours.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from mtm_jax import distributions
from mtm_jax.config import SACConfig
from mtm_jax.models import critics
from mtm_jax.training import optim
from mtm_jax.training.dataset import Transitions
from mtm_jax.training.program import Metrics, Training


class Replay(flax.struct.PyTreeNode):
    """A ring of the latest transitions."""

    ring: Transitions
    inserted: Array  # [] int32, transitions ever inserted


class SACState(flax.struct.PyTreeNode):
    """Everything that training needs besides the replay buffer."""

    actor: dict
    actor_average: dict  # what the ladder keeps: it acts steadier than the latest actor
    critic: dict
    target_critic: dict
    log_alpha: Array
    actor_opt: optax.OptState
    critic_opt: optax.OptState
    alpha_opt: optax.OptState
    key: Array  # folded with `step`, never advanced
    step: Array  # updates done


class SAC(NamedTuple):
    """What an update needs besides state and data."""

    config: SACConfig
    actor: critics.TanhNormalActor
    critic: critics.Q  # of two members
    optimizer: optax.GradientTransformation  # of actor, critic and temperature

    def act(self, params: dict, obs: Array, key: Array) -> tuple[Array, Array]:
        """Draw actions, [n, A], and their joint log densities, [n]."""
        dist = self.actor.apply({"params": params}, obs)
        action, log_prob = distributions.sample_and_log_prob(key, dist)
        return action, log_prob.sum(-1)

    def q_values(self, params: dict, obs: Array, action: Array) -> Array:
        """Value the actions by both critics, [2, n]."""
        return self.critic.apply({"params": params}, obs, action)


def empty_replay(capacity: int, obs_dim: int, action_dim: int) -> Replay:
    """Allocate a ring of `capacity` transitions."""
    ring = Transitions(
        obs=jnp.zeros((capacity, obs_dim)),
        actions=jnp.zeros((capacity, action_dim)),
        rewards=jnp.zeros(capacity),
        next_obs=jnp.zeros((capacity, obs_dim)),
        terminals=jnp.zeros(capacity),
    )
    return Replay(ring, jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, donate_argnums=0)
def insert(replay: Replay, batch: Transitions) -> Replay:
    """Write a batch over the oldest transitions."""
    count, capacity = batch.rewards.shape[0], replay.ring.rewards.shape[0]
    slots = (replay.inserted + jnp.arange(count)) % capacity
    ring = jax.tree.map(lambda old, new: old.at[slots].set(new), replay.ring, batch)
    return Replay(ring, replay.inserted + count)


def sample(key: Array, replay: Replay, batch_size: int) -> Transitions:
    """Draw a batch uniformly from what has been inserted."""
    size = jnp.minimum(replay.inserted, replay.ring.rewards.shape[0])
    rows = jax.random.randint(key, (batch_size,), 0, size)
    return jax.tree.map(lambda x: x[rows], replay.ring)


def make_training(config: SACConfig, obs_dim: int, action_dim: int) -> Training:
    """Describe the training in one environment; its data are a `Replay`."""
    algorithm = make_sac(config, action_dim)
    init = functools.partial(init_state, algorithm=algorithm, obs_dim=obs_dim)
    return Training(init, functools.partial(step, algorithm), shared=config)


def make_sac(config: SACConfig, action_dim: int) -> SAC:
    """Build actor, twin critic and optimiser."""
    actor = critics.TanhNormalActor(action_dim, config.hidden)
    return SAC(config, actor, critics.Q(config.hidden, members=2), make_optimizer(config))


def make_optimizer(config: SACConfig) -> optax.GradientTransformation:
    """Build Adam; from `decay_from` of the updates on, its rate falls to zero linearly."""
    start = int(config.total_updates * config.decay_from)
    constant = optax.constant_schedule(config.learning_rate)
    if start >= config.total_updates:
        return optax.adam(constant)
    decay = optax.linear_schedule(config.learning_rate, 0.0, config.total_updates - start)
    return optax.adam(optax.join_schedules([constant, decay], [start]))


def init_state(key: Array, algorithm: SAC, obs_dim: int) -> SACState:
    """Draw initial parameters; averages start at them, the temperature at one."""
    actor_key, critic_key, run_key = jax.random.split(key, 3)
    obs, action = jnp.zeros((1, obs_dim)), jnp.zeros((1, algorithm.actor.action_dim))
    actor = algorithm.actor.init(actor_key, obs)["params"]
    critic = algorithm.critic.init(critic_key, obs, action)["params"]
    log_alpha = jnp.zeros(())
    return SACState(
        actor=actor,
        actor_average=jax.tree.map(jnp.copy, actor),
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        log_alpha=log_alpha,
        actor_opt=algorithm.optimizer.init(actor),
        critic_opt=algorithm.optimizer.init(critic),
        alpha_opt=algorithm.optimizer.init(log_alpha),
        key=run_key,
        step=jnp.zeros((), jnp.int32),
    )


def step(algorithm: SAC, state: SACState, replay: Replay) -> tuple[SACState, Metrics]:
    """Draw a batch and update on it."""
    sample_key, *update_keys = step_keys(state)
    batch = sample(sample_key, replay, algorithm.config.batch_size)
    return update(state, algorithm, batch, update_keys)


def step_keys(state: SACState) -> Array:
    """Derive the keys of the next step: of the batch, the critic's and the actor's actions, [3]."""
    return jax.random.split(jax.random.fold_in(state.key, state.step), 3)


def update(
    state: SACState, algorithm: SAC, batch: Transitions, keys: Sequence[Array]
) -> tuple[SACState, Metrics]:
    """Update critic, actor, temperature and averages on one batch; two keys."""
    config, optimizer = algorithm.config, algorithm.optimizer
    state, q_loss = critic_step(state, algorithm, batch, keys[0])
    state, pi_loss, entropy = actor_step(state, algorithm, batch, keys[1])
    target_entropy = -config.target_entropy_per_dim * algorithm.actor.action_dim
    alpha_grad = jnp.exp(state.log_alpha) * (entropy - target_entropy)
    alpha_update, alpha_opt = optimizer.update(alpha_grad, state.alpha_opt)
    state = state.replace(
        log_alpha=state.log_alpha + alpha_update,
        alpha_opt=alpha_opt,
        target_critic=optax.incremental_update(state.critic, state.target_critic, config.polyak),
        step=state.step + 1,
    )
    metrics = {
        "critic/loss": q_loss,
        "actor/loss": pi_loss,
        "actor/entropy": entropy,
        "actor/alpha": jnp.exp(state.log_alpha),
    }
    return state, metrics


def critic_step(
    state: SACState, algorithm: SAC, batch: Transitions, key: Array
) -> tuple[SACState, Array]:
    """Move both critics towards the target; return their loss too."""
    critic, critic_opt, loss, _ = optim.descend(
        lambda params: (critic_loss(params, algorithm, state, batch, key), None),
        *(state.critic, state.critic_opt, algorithm.optimizer),
    )
    return state.replace(critic=critic, critic_opt=critic_opt), loss


def critic_loss(
    params: dict, algorithm: SAC, state: SACState, batch: Transitions, key: Array
) -> Array:
    """Squared error of both critics against r + discount * soft value, terminals without one."""
    next_action, next_log_prob = algorithm.act(state.actor, batch.next_obs, key)
    next_q = algorithm.q_values(state.target_critic, batch.next_obs, next_action).min(0)
    next_v = next_q - jnp.exp(state.log_alpha) * next_log_prob
    target = batch.rewards + algorithm.config.discount * (1.0 - batch.terminals) * next_v
    error = algorithm.q_values(params, batch.obs, batch.actions) - jax.lax.stop_gradient(target)
    return jnp.mean(jnp.sum(error**2, axis=0))


def actor_step(
    state: SACState, algorithm: SAC, batch: Transitions, key: Array
) -> tuple[SACState, Array, Array]:
    """Move the actor and its average; return its loss and its entropy, both before the step."""
    actor, actor_opt, loss, entropy = optim.descend(
        lambda params: actor_loss(params, algorithm, state, batch, key),
        *(state.actor, state.actor_opt, algorithm.optimizer),
    )
    step_size = algorithm.config.actor_average
    average = optax.incremental_update(actor, state.actor_average, step_size)
    return state.replace(actor=actor, actor_average=average, actor_opt=actor_opt), loss, entropy


def actor_loss(
    params: dict, algorithm: SAC, state: SACState, batch: Transitions, key: Array
) -> tuple[Array, Array]:
    """Mean of alpha * log density - value, and the entropy."""
    action, log_prob = algorithm.act(params, batch.obs, key)
    q = algorithm.q_values(state.critic, batch.obs, action).min(0)
    return jnp.mean(jnp.exp(state.log_alpha) * log_prob - q), -jnp.mean(log_prob)
