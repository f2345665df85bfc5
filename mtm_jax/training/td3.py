"""TD3 on recorded data (Fujimoto et al. 2018), on raw states or on features of an encoder.

One update: draw transitions -> both critics towards r + discount * the least target value of a
noisy next action -> every `policy_delay` updates the actor up its value, and the targets towards
what is learnt. MTM's variant (appendix E) has neither target actor nor delay.
With `TD3Config.alpha` it is TD3+BC (Fujimoto & Gu 2021), whose actor is also drawn to the data.

What actor and critics see is a `Features`. Finetuned features have a copy of their parameters in
the actor, in the critics and in each target; frozen ones are part of the data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from mtm_jax import distributions, tokens
from mtm_jax.config import TD3Config
from mtm_jax.models import td3_networks
from mtm_jax.training import dataset, optim
from mtm_jax.training.program import Metrics, Training


class Features(NamedTuple):
    """What actor and critics see.

    Attributes:
        states: (params, obs [..., S] raw) -> [..., F], what the actor sees.
        pairs: (params, obs, actions [..., A] in [-1, 1]) -> [..., G], what the critics see.
        params: of both; empty where there are none.
        finetuned: whether `params` are learnt further.
    """

    states: Callable[[dict, Array], Array]
    pairs: Callable[[dict, Array, Array], Array]
    params: dict
    finetuned: bool = False


class Data(flax.struct.PyTreeNode):
    """What a training reads."""

    steps: dataset.Dataset  # that has transitions
    features: dict  # parameters of frozen features


class TD3State(flax.struct.PyTreeNode):
    """Everything that a restart needs; networks as {"network": ..., "features": if finetuned}."""

    actor: dict
    critic: dict
    target_actor: dict | None
    target_critic: dict
    actor_opt: optax.OptState
    critic_opt: optax.OptState
    key: Array  # folded with `step`, never advanced
    step: Array  # updates done, [] int32


class TD3(NamedTuple):
    """What an update needs besides state and data."""

    config: TD3Config
    features: Features
    actor: td3_networks.TanhActor
    critic: td3_networks.Values
    optimizer: optax.GradientTransformation

    def act(self, params: dict, frozen: dict, obs: Array) -> Array:
        """Choose actions in [-1, 1] for raw observations, [..., S] -> [..., A]."""
        seen = self.features.states(params.get("features", frozen), obs)
        return self.actor.apply({"params": params["network"]}, seen)

    def values(self, params: dict, frozen: dict, obs: Array, actions: Array) -> Array:
        """Value actions by both critics in units of `config.unit`, -> [2, ...]."""
        seen = self.features.pairs(params.get("features", frozen), obs, actions)
        return self.critic.apply({"params": params["network"]}, seen)


def raw_features(stats: tokens.Stats) -> Features:
    """Show states, normalised by these statistics, and actions as they are."""

    def pairs(params: dict, obs: Array, actions: Array) -> Array:
        return jnp.concatenate([tokens.encode(stats, obs), actions], axis=-1)

    return Features(lambda params, obs: tokens.encode(stats, obs), pairs, {})


def make_td3(config: TD3Config, features: Features, action_dim: int) -> TD3:
    """Build actor, twin critics and optimiser."""
    shape = config.hidden, config.bounded
    return TD3(
        *(config, features, td3_networks.TanhActor(action_dim, *shape)),
        *(td3_networks.Values(*shape), optax.adam(config.learning_rate)),
    )


def make_training(algorithm: TD3, obs_dim: int) -> Training:
    """Describe the training of one run; its data are `make_data(algorithm.features, steps)`."""
    init = functools.partial(init_state, algorithm=algorithm, obs_dim=obs_dim)
    return Training(init, functools.partial(step, algorithm), shared=algorithm.config)


def make_data(features: Features, steps: dataset.Dataset) -> Data:
    """Join recorded steps and what is frozen."""
    return Data(steps, {} if features.finetuned else features.params)


def init_state(key: Array, algorithm: TD3, obs_dim: int) -> TD3State:
    """Draw initial parameters; targets start as copies."""
    actor_key, critic_key, run_key = jax.random.split(key, 3)
    features = algorithm.features
    obs, action = jnp.zeros((1, obs_dim)), jnp.zeros((1, algorithm.actor.action_dim))
    own = {"features": features.params} if features.finetuned else {}
    seen = features.states(features.params, obs), features.pairs(features.params, obs, action)
    actor = {"network": algorithm.actor.init(actor_key, seen[0])["params"]} | own
    critic = {"network": algorithm.critic.init(critic_key, seen[1])["params"]} | own
    copy = functools.partial(jax.tree.map, jnp.copy)
    return TD3State(
        actor=actor,
        critic=critic,
        target_actor=copy(actor) if algorithm.config.target_actor else None,
        target_critic=copy(critic),
        actor_opt=algorithm.optimizer.init(actor),
        critic_opt=algorithm.optimizer.init(critic),
        key=run_key,
        step=jnp.zeros((), jnp.int32),
    )


def step(algorithm: TD3, state: TD3State, data: Data) -> tuple[TD3State, Metrics]:
    """Draw a batch and update on it."""
    batch_key, *keys = step_keys(state)
    batch = dataset.sample_transitions(batch_key, data.steps, algorithm.config.batch_size)
    return update(state, algorithm, data.features, batch, keys)


def step_keys(state: TD3State) -> Array:
    """Derive the keys of the next step: of the batch, the target's and the actor's noise, [3]."""
    return jax.random.split(jax.random.fold_in(state.key, state.step), 3)


def update(
    state: TD3State, algorithm: TD3, frozen: dict, batch: dataset.Transitions, keys: list[Array]
) -> tuple[TD3State, Metrics]:
    """Update the critics and, if it is due, the actor and the targets; two keys."""
    config = algorithm.config
    target = target_values(state, algorithm, frozen, batch, keys[0])
    critic, critic_opt, loss, mean = optim.descend(
        lambda params: critic_loss(params, algorithm, frozen, batch, target),
        *(state.critic, state.critic_opt, algorithm.optimizer),
    )
    state = state.replace(critic=critic, critic_opt=critic_opt)
    follow = lambda s: follow_critic(s, algorithm, frozen, batch, keys[1])  # noqa: E731
    if config.policy_delay == 1:
        state, actor_loss = follow(state)
    else:
        due = state.step % config.policy_delay == 0
        state, actor_loss = jax.lax.cond(due, follow, lambda s: (s, jnp.zeros(())), state)
        actor_loss = actor_loss * config.policy_delay  # whose mean over many updates is meant
    metrics = {
        "critic/loss": config.unit**2 * loss,
        "critic/q_mean": config.unit * mean,
        "actor/loss": actor_loss,
    }
    return state.replace(step=state.step + 1), metrics


def target_values(
    state: TD3State, algorithm: TD3, frozen: dict, batch: dataset.Transitions, key: Array
) -> Array:
    """Reward and discounted least value of a noisy next action, none after a terminal, [B]."""
    config = algorithm.config
    actor = state.actor if state.target_actor is None else state.target_actor
    action = algorithm.act(actor, frozen, batch.next_obs)
    action = add_noise(key, action, config)
    least = algorithm.values(state.target_critic, frozen, batch.next_obs, action).min(0)
    return batch.rewards / config.unit + config.discount * (1.0 - batch.terminals) * least


def add_noise(key: Array, action: Array, config: TD3Config) -> Array:
    """Add clipped Normal noise inside of [-1, 1]; gradients pass as if nothing was clipped."""
    noise = config.noise * jax.random.normal(key, action.shape)
    noisy = action + jnp.clip(noise, -config.noise_clip, config.noise_clip)
    limit = distributions.ACTION_LIMIT
    return noisy + jax.lax.stop_gradient(jnp.clip(noisy, -limit, limit) - noisy)


def critic_loss(
    params: dict, algorithm: TD3, frozen: dict, batch: dataset.Transitions, target: Array
) -> tuple[Array, Array]:
    """Squared errors of both critics, summed, and the mean value."""
    q = algorithm.values(params, frozen, batch.obs, batch.actions)
    return jnp.mean(jnp.sum((q - target) ** 2, axis=0)), jnp.mean(q)


def follow_critic(
    state: TD3State, algorithm: TD3, frozen: dict, batch: dataset.Transitions, key: Array
) -> tuple[TD3State, Array]:
    """Move the actor up its value and the targets after what is learnt; and the actor's loss."""
    actor, actor_opt, loss, _ = optim.descend(
        lambda params: (actor_loss(params, state.critic, algorithm, frozen, batch, key), None),
        *(state.actor, state.actor_opt, algorithm.optimizer),
    )
    track = functools.partial(optax.incremental_update, step_size=algorithm.config.polyak)
    target_actor = state.target_actor
    state = state.replace(
        actor=actor,
        actor_opt=actor_opt,
        target_actor=None if target_actor is None else track(actor, target_actor),
        target_critic=track(state.critic, state.target_critic),
    )
    return state, loss


def actor_loss(
    params: dict,
    critic: dict,
    algorithm: TD3,
    frozen: dict,
    batch: dataset.Transitions,
    key: Array,
) -> Array:
    """Negative value of the actor's actions; under `alpha` with the distance to the data's, []."""
    config = algorithm.config
    chosen = algorithm.act(params, frozen, batch.obs)
    action = add_noise(key, chosen, config) if config.actor_noise else chosen
    q = algorithm.values(critic, frozen, batch.obs, action)
    q = q.min(0) if config.actor_value == "least" else q[0]
    if config.alpha is None:
        return -jnp.mean(q)
    size = jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    return jnp.mean((chosen - batch.actions) ** 2) - config.alpha * jnp.mean(q) / size
