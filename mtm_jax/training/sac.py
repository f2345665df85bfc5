"""Soft actor-critic (Haarnoja et al. 2018): trains the behaviour policies of the built-in data.

One update: draw a batch -> twin-Q target with the entropy bonus -> critic step -> actor step
-> temperature step towards an entropy of -A -> averages of target critic and actor.
The replay buffer lives on the device; the environment does not (`experiments/behaviours.py`).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from mtm_jax import distributions
from mtm_jax.config import SACConfig
from mtm_jax.models import critics
from mtm_jax.training import trainer as training
from mtm_jax.training.dataset import Transitions


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


class Networks(NamedTuple):
    """Actor and critic, without their parameters."""

    actor: critics.TanhNormalActor
    critic: critics.Q

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


def make_trainer(config: SACConfig, obs_dim: int, action_dim: int) -> training.Trainer:
    """Build the program for one environment's dimensions; `run` takes a `Replay`."""
    networks = make_networks(config, action_dim)
    optimizer = make_optimizer(config)

    def init(key: Array) -> SACState:
        return init_state(key, networks, optimizer, obs_dim, action_dim)

    def step(state: SACState, replay: Replay) -> tuple[SACState, training.Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        batch = sample(keys[0], replay, config.batch_size)
        return update(state, config, networks, optimizer, batch, keys[1:])

    return training.make_trainer(init, step)


def make_networks(config: SACConfig, action_dim: int) -> Networks:
    """Build the actor and the twin critic."""
    actor = critics.TanhNormalActor(action_dim, config.hidden)
    return Networks(actor, critics.Q(config.hidden, members=2))


def make_optimizer(config: SACConfig) -> optax.GradientTransformation:
    """Build Adam; from `decay_from` of the updates on, its rate falls to zero linearly."""
    start = int(config.total_updates * config.decay_from)
    constant = optax.constant_schedule(config.learning_rate)
    if start >= config.total_updates:
        return optax.adam(constant)
    decay = optax.linear_schedule(config.learning_rate, 0.0, config.total_updates - start)
    return optax.adam(optax.join_schedules([constant, decay], [start]))


def init_state(
    key: Array,
    networks: Networks,
    optimizer: optax.GradientTransformation,
    obs_dim: int,
    action_dim: int,
) -> SACState:
    """Draw initial parameters; averages start at them, the temperature at one."""
    actor_key, critic_key, run_key = jax.random.split(key, 3)
    obs, action = jnp.zeros((1, obs_dim)), jnp.zeros((1, action_dim))
    actor = networks.actor.init(actor_key, obs)["params"]
    critic = networks.critic.init(critic_key, obs, action)["params"]
    log_alpha = jnp.zeros(())
    return SACState(
        actor=actor,
        actor_average=jax.tree.map(jnp.copy, actor),
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        log_alpha=log_alpha,
        actor_opt=optimizer.init(actor),
        critic_opt=optimizer.init(critic),
        alpha_opt=optimizer.init(log_alpha),
        key=run_key,
        step=jnp.zeros((), jnp.int32),
    )


def update(
    state: SACState,
    config: SACConfig,
    networks: Networks,
    optimizer: optax.GradientTransformation,
    batch: Transitions,
    keys: Array,
) -> tuple[SACState, training.Metrics]:
    """Update critic, actor, temperature and averages on one batch; two keys."""
    state, q_loss = critic_step(state, config, networks, optimizer, batch, keys[0])
    state, pi_loss, entropy = actor_step(state, config, networks, optimizer, batch, keys[1])
    target_entropy = -config.target_entropy_per_dim * networks.actor.action_dim
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
    state: SACState,
    config: SACConfig,
    networks: Networks,
    optimizer: optax.GradientTransformation,
    batch: Transitions,
    key: Array,
) -> tuple[SACState, Array]:
    """Move both critics towards the target; return their loss too."""
    gradient = jax.value_and_grad(critic_loss)
    loss, grads = gradient(state.critic, networks, state, batch, key, config.discount)
    updates, critic_opt = optimizer.update(grads, state.critic_opt)
    critic = optax.apply_updates(state.critic, updates)
    return state.replace(critic=critic, critic_opt=critic_opt), loss


def critic_loss(
    params: dict,
    networks: Networks,
    state: SACState,
    batch: Transitions,
    key: Array,
    discount: float,
) -> Array:
    """Squared error of both critics against r + discount * soft value, terminals without one."""
    next_action, next_log_prob = networks.act(state.actor, batch.next_obs, key)
    next_q = networks.q_values(state.target_critic, batch.next_obs, next_action).min(0)
    next_v = next_q - jnp.exp(state.log_alpha) * next_log_prob
    target = batch.rewards + discount * (1.0 - batch.terminals) * next_v
    error = networks.q_values(params, batch.obs, batch.actions) - jax.lax.stop_gradient(target)
    return jnp.mean(jnp.sum(error**2, axis=0))


def actor_step(
    state: SACState,
    config: SACConfig,
    networks: Networks,
    optimizer: optax.GradientTransformation,
    batch: Transitions,
    key: Array,
) -> tuple[SACState, Array, Array]:
    """Move the actor and its average; return its loss and the entropy it had."""
    gradient = jax.value_and_grad(actor_loss, has_aux=True)
    (loss, entropy), grads = gradient(state.actor, networks, state, batch, key)
    updates, actor_opt = optimizer.update(grads, state.actor_opt)
    actor = optax.apply_updates(state.actor, updates)
    average = optax.incremental_update(actor, state.actor_average, config.actor_average)
    return state.replace(actor=actor, actor_average=average, actor_opt=actor_opt), loss, entropy


def actor_loss(
    params: dict, networks: Networks, state: SACState, batch: Transitions, key: Array
) -> tuple[Array, Array]:
    """Mean of alpha * log density - value, and the entropy."""
    action, log_prob = networks.act(params, batch.obs, key)
    q = networks.q_values(state.critic, batch.obs, action).min(0)
    return jnp.mean(jnp.exp(state.log_alpha) * log_prob - q), -jnp.mean(log_prob)
