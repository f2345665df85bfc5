"""Soft actor-critic (Haarnoja et al. 2018): trains the behaviour policies of the built-in data.

    init(key)                         -> SACState
    update(state, replay, size, n)    -> n updates in one scan, metrics averaged over them

Each update: draw a batch -> twin-Q target with the entropy bonus -> Q step -> actor step
-> temperature step towards an entropy of -A -> Polyak average of the targets.
The replay buffer lives on the device; the environment does not (see experiments/collect.py).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from mtm_jax import critics, distributions
from mtm_jax.config import SACConfig


class Replay(flax.struct.PyTreeNode):
    """A ring of transitions on the device; `terminals` are real endings, never timeouts."""

    obs: Array  # [capacity, S]
    actions: Array  # [capacity, A]
    rewards: Array  # [capacity]
    next_obs: Array  # [capacity, S]
    terminals: Array  # [capacity], 1.0 = terminal

    @classmethod
    def empty(cls, capacity: int, obs_dim: int, action_dim: int) -> Replay:
        """Allocate a ring of `capacity` zero transitions."""
        return cls(
            obs=jnp.zeros((capacity, obs_dim)),
            actions=jnp.zeros((capacity, action_dim)),
            rewards=jnp.zeros(capacity),
            next_obs=jnp.zeros((capacity, obs_dim)),
            terminals=jnp.zeros(capacity),
        )


class SACState(flax.struct.PyTreeNode):
    """Everything that training needs besides the replay buffer."""

    actor: dict
    critic: dict
    target_critic: dict
    log_alpha: Array
    actor_opt: optax.OptState
    critic_opt: optax.OptState
    alpha_opt: optax.OptState
    key: Array  # folded with `step`, never advanced
    step: Array  # updates done


class SAC(NamedTuple):
    """The pure functions of one SAC program; see `make_sac`."""

    init: callable
    update: callable
    insert: callable


@functools.partial(jax.jit, donate_argnums=0)
def insert(replay: Replay, batch: Replay, start: Array) -> Replay:
    """Write `batch` into the ring from slot `start` on, wrapping at the end."""
    capacity = replay.rewards.shape[0]
    slots = (start + jnp.arange(batch.rewards.shape[0])) % capacity
    return jax.tree.map(lambda ring, new: ring.at[slots].set(new), replay, batch)


def make_sac(config: SACConfig, obs_dim: int, action_dim: int) -> SAC:
    """Build the program for one environment's dimensions."""
    actor = critics.TanhNormalActor(action_dim, config.hidden)
    critic = critics.Q(config.hidden, members=2)
    optimizer = optax.adam(config.learning_rate)
    target_entropy = -float(action_dim) * config.target_entropy_per_dim

    def init(key: Array) -> SACState:
        actor_key, critic_key, run_key = jax.random.split(key, 3)
        obs, action = jnp.zeros((1, obs_dim)), jnp.zeros((1, action_dim))
        actor_params = actor.init(actor_key, obs)["params"]
        critic_params = critic.init(critic_key, obs, action)["params"]
        log_alpha = jnp.zeros(())
        return SACState(
            actor=actor_params,
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
        action, log_prob = distributions.sample_and_log_prob(key, actor.apply({"params": params}, obs))
        return action, log_prob.sum(-1)

    def critic_loss(params: dict, state: SACState, batch: Replay, key: Array) -> Array:
        next_action, next_log_prob = act(state.actor, batch.next_obs, key)
        next_q = critic.apply({"params": state.target_critic}, batch.next_obs, next_action).min(0)
        next_v = next_q - jnp.exp(state.log_alpha) * next_log_prob
        target = batch.rewards + config.discount * (1.0 - batch.terminals) * next_v
        q = critic.apply({"params": params}, batch.obs, batch.actions)
        return jnp.mean(jnp.sum((q - jax.lax.stop_gradient(target)) ** 2, axis=0))

    def actor_loss(params: dict, state: SACState, batch: Replay, key: Array) -> tuple[Array, Array]:
        action, log_prob = act(params, batch.obs, key)
        q = critic.apply({"params": state.critic}, batch.obs, action).min(0)
        return jnp.mean(jnp.exp(state.log_alpha) * log_prob - q), -jnp.mean(log_prob)

    def update_once(state: SACState, replay: Replay, size: Array) -> tuple[SACState, dict]:
        batch_key, target_key, actor_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        rows = jax.random.randint(batch_key, (config.batch_size,), 0, size)
        batch = jax.tree.map(lambda ring: ring[rows], replay)

        q_loss, grads = jax.value_and_grad(critic_loss)(state.critic, state, batch, target_key)
        updates, critic_opt = optimizer.update(grads, state.critic_opt)
        state = state.replace(
            critic=optax.apply_updates(state.critic, updates), critic_opt=critic_opt
        )

        (pi_loss, entropy), grads = jax.value_and_grad(actor_loss, has_aux=True)(
            state.actor, state, batch, actor_key
        )
        updates, actor_opt = optimizer.update(grads, state.actor_opt)
        alpha_grad = jnp.exp(state.log_alpha) * (entropy - target_entropy)
        alpha_updates, alpha_opt = optimizer.update(alpha_grad, state.alpha_opt)
        state = state.replace(
            actor=optax.apply_updates(state.actor, updates),
            actor_opt=actor_opt,
            log_alpha=state.log_alpha + alpha_updates,
            alpha_opt=alpha_opt,
            target_critic=optax.incremental_update(
                state.critic, state.target_critic, config.polyak
            ),
            step=state.step + 1,
        )
        metrics = {
            "critic/loss": q_loss,
            "actor/loss": pi_loss,
            "actor/entropy": entropy,
            "actor/alpha": jnp.exp(state.log_alpha),
        }
        return state, metrics

    @functools.partial(jax.jit, static_argnames="n", donate_argnums=0)
    def update(state: SACState, replay: Replay, size: Array, n: int) -> tuple[SACState, dict]:
        state, metrics = jax.lax.scan(
            lambda s, _: update_once(s, replay, size), state, None, length=n
        )
        return state, jax.tree.map(jnp.mean, metrics)

    return SAC(init, update, insert)
