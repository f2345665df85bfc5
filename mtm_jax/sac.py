"""Soft actor-critic (Haarnoja et al. 2018): trains the behaviour policies of the built-in data.

One update: draw a batch -> twin-Q target with the entropy bonus -> critic step -> actor step
-> temperature step towards an entropy of -A -> averages of target critic and actor.
The replay buffer lives on the device; the environment does not (`experiments/behaviours.py`).
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from mtm_jax import critics, distributions, training
from mtm_jax.config import SACConfig


class Transitions(flax.struct.PyTreeNode):
    """Transitions end to end; n of them."""

    obs: Array  # [n, S]
    actions: Array  # [n, A] in [-1, 1]
    rewards: Array  # [n]
    next_obs: Array  # [n, S]
    terminals: Array  # [n], 1.0 where the environment itself ended the episode


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
    actor = critics.TanhNormalActor(action_dim, config.hidden)
    critic = critics.Q(config.hidden, members=2)
    half = config.total_updates // 2
    constant = optax.constant_schedule(config.learning_rate)
    decay = optax.linear_schedule(config.learning_rate, 0.0, config.total_updates - half)
    optimizer = optax.adam(optax.join_schedules([constant, decay], [half]))
    target_entropy = -config.target_entropy_per_dim * action_dim

    def init(key: Array) -> SACState:
        actor_key, critic_key, run_key = jax.random.split(key, 3)
        obs, action = jnp.zeros((1, obs_dim)), jnp.zeros((1, action_dim))
        actor_params = actor.init(actor_key, obs)["params"]
        critic_params = critic.init(critic_key, obs, action)["params"]
        log_alpha = jnp.zeros(())
        return SACState(
            actor=actor_params,
            actor_average=jax.tree.map(jnp.copy, actor_params),
            critic=critic_params,
            target_critic=jax.tree.map(jnp.copy, critic_params),
            log_alpha=log_alpha,
            actor_opt=optimizer.init(actor_params),
            critic_opt=optimizer.init(critic_params),
            alpha_opt=optimizer.init(log_alpha),
            key=run_key,
            step=jnp.zeros((), jnp.int32),
        )

    def act(params: dict, obs: Array, key: Array) -> tuple[Array, Array]:
        dist = actor.apply({"params": params}, obs)
        action, log_prob = distributions.sample_and_log_prob(key, dist)
        return action, log_prob.sum(-1)

    def q_values(params: dict, obs: Array, action: Array) -> Array:
        return critic.apply({"params": params}, obs, action)  # [2, batch]

    def critic_loss(params: dict, state: SACState, batch: Transitions, key: Array) -> Array:
        next_action, next_log_prob = act(state.actor, batch.next_obs, key)
        next_q = q_values(state.target_critic, batch.next_obs, next_action).min(0)
        next_v = next_q - jnp.exp(state.log_alpha) * next_log_prob
        target = batch.rewards + config.discount * (1.0 - batch.terminals) * next_v
        error = q_values(params, batch.obs, batch.actions) - jax.lax.stop_gradient(target)
        return jnp.mean(jnp.sum(error**2, axis=0))

    def actor_loss(
        params: dict, state: SACState, batch: Transitions, key: Array
    ) -> tuple[Array, Array]:
        action, log_prob = act(params, batch.obs, key)
        q = q_values(state.critic, batch.obs, action).min(0)
        return jnp.mean(jnp.exp(state.log_alpha) * log_prob - q), -jnp.mean(log_prob)

    def step(state: SACState, replay: Replay) -> tuple[SACState, training.Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        batch = sample(keys[0], replay, config.batch_size)
        q_loss, grads = jax.value_and_grad(critic_loss)(state.critic, state, batch, keys[1])
        updates, critic_opt = optimizer.update(grads, state.critic_opt)
        critic_params = optax.apply_updates(state.critic, updates)
        state = state.replace(critic=critic_params, critic_opt=critic_opt)

        gradient = jax.value_and_grad(actor_loss, has_aux=True)
        (pi_loss, entropy), grads = gradient(state.actor, state, batch, keys[2])
        updates, actor_opt = optimizer.update(grads, state.actor_opt)
        actor_params = optax.apply_updates(state.actor, updates)
        alpha_grad = jnp.exp(state.log_alpha) * (entropy - target_entropy)
        alpha_update, alpha_opt = optimizer.update(alpha_grad, state.alpha_opt)

        average = optax.incremental_update
        state = state.replace(
            actor=actor_params,
            actor_average=average(actor_params, state.actor_average, config.actor_average),
            actor_opt=actor_opt,
            target_critic=average(critic_params, state.target_critic, config.polyak),
            log_alpha=state.log_alpha + alpha_update,
            alpha_opt=alpha_opt,
            step=state.step + 1,
        )
        metrics = {
            "critic/loss": q_loss,
            "actor/loss": pi_loss,
            "actor/entropy": entropy,
            "actor/alpha": jnp.exp(state.log_alpha),
        }
        return state, metrics

    return training.make_trainer(init, step)
