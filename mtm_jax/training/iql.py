"""Implicit Q-learning (Kostrikov et al. 2021): the critic that guides M3PC's planning.

One update, everything read from the old parameters: draw transitions -> V towards an expectile of
the target Q over the data's actions -> Q towards r + discount * V(s'), a terminal without V(s')
(the release bootstraps there too: F2) -> optional policy by advantage-weighted regression
-> optional probability that a state ends the episode -> average of the target Q.

Values are learnt in `CriticConfig.unit`: a network starts near zero and moves by about its learning
rate, so values of some hundreds cost it thousands of updates. Losses and results are in raw units.

Observations are raw everywhere outside this module; the networks see them normalised with the
statistics of the data's states, as the trajectory model does. Actions are in [-1, 1].
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from mtm_jax import tokens
from mtm_jax.config import CriticConfig
from mtm_jax.models import critics
from mtm_jax.training import dataset, losses, optim
from mtm_jax.training.program import Metrics, Training


class IQLState(flax.struct.PyTreeNode):
    """Everything that a restart needs; what is not learnt, and its optimiser, are None."""

    q: dict
    target_q: dict
    v: dict
    policy: dict | None
    q_opt: optax.OptState
    v_opt: optax.OptState
    policy_opt: optax.OptState | None
    key: Array  # folded with `step`, never advanced
    step: Array  # updates done, [] int32
    end: dict | None = None  # logit that a state ends the episode
    end_opt: optax.OptState | None = None


class Critic(NamedTuple):
    """A trained critic; `q_values(critic.params, critic.stats, obs, action)` asks it."""

    config: CriticConfig
    params: dict  # `raw_params` of its state
    stats: tokens.Stats  # of the states
    step: int  # updates done


def raw_params(state: IQLState, config: CriticConfig) -> dict:
    """Collect what acting and planning need: "q" and "v", and "policy" and "end" if learnt.

    The unit that values are learnt in goes into the last layers, so that these networks value in
    sums of raw rewards.
    """
    q = {name: _scale_output(mlp, config.unit) for name, mlp in state.q.items()}
    found = {"q": q, "v": {"mlp": _scale_output(state.v["mlp"], config.unit)}}
    further = {"policy": state.policy, "end": state.end}
    return found | {name: params for name, params in further.items() if params is not None}


def _scale_output(mlp: dict, factor: float) -> dict:
    last = f"layer_{len(_widths(mlp)) - 1}"
    return mlp | {last: jax.tree.map(lambda x: factor * x, mlp[last])}


def q_values(params: dict, stats: tokens.Stats, obs: Array, action: Array) -> Array:
    """Value actions by every member of the ensemble; a planner takes the least.

    Args:
        params: `Critic.params`.
        stats: of the states.
        obs: [..., S] raw.
        action: [..., A] in [-1, 1].

    Returns:
        [members, ...], discounted sums of raw rewards.
    """
    return _apply_q(params["q"], tokens.encode(stats, obs), action)


def v_values(params: dict, stats: tokens.Stats, obs: Array) -> Array:
    """Value states, [..., S] raw -> [...]; see `q_values`."""
    return _apply_v(params["v"], tokens.encode(stats, obs))


def end_probabilities(params: dict, stats: tokens.Stats, obs: Array) -> Array:
    """Say how probably states end their episode, by a terminal: [..., S] raw -> [...].

    Args:
        params: `Critic.params` of a critic that was trained with `CriticConfig.terminals`.
        stats: of the states.
        obs: states.
    """
    return jax.nn.sigmoid(_apply_v(params["end"], tokens.encode(stats, obs)))


def make_training(
    config: CriticConfig, obs_dim: int, action_dim: int, stats: tokens.Stats
) -> Training:
    """Describe the training of a critic; its data are a `dataset.Dataset` that has transitions.

    Args:
        config: settings.
        obs_dim: S.
        action_dim: A.
        stats: of the states of the training split.
    """
    init = functools.partial(init_state, config=config, obs_dim=obs_dim, action_dim=action_dim)
    return Training(init, functools.partial(step, config, stats), shared=config)


def init_state(key: Array, config: CriticConfig, obs_dim: int, action_dim: int) -> IQLState:
    """Draw initial parameters; the target starts as a copy of Q."""
    q_key, v_key, policy_key, run_key = jax.random.split(key, 4)
    obs, action = jnp.zeros((1, obs_dim)), jnp.zeros((1, action_dim))
    q_network = critics.Q(config.hidden, config.members, config.layer_norm)
    q = q_network.init(q_key, obs, action)["params"]
    v = critics.V(config.hidden, config.layer_norm).init(v_key, obs)["params"]
    policy, end = None, None
    if config.policy:
        policy = critics.NormalActor(action_dim, config.hidden).init(policy_key, obs)["params"]
    if config.terminals:
        end_key = jax.random.fold_in(key, 1)  # the others stay what they are without it
        end = critics.V(config.hidden, config.layer_norm).init(end_key, obs)["params"]
    optimizer, policy_optimizer = _optimizers(config)
    return IQLState(
        q=q,
        target_q=jax.tree.map(jnp.copy, q),
        v=v,
        policy=policy,
        q_opt=optimizer.init(q),
        v_opt=optimizer.init(v),
        policy_opt=policy_optimizer.init(policy) if config.policy else None,
        key=run_key,
        step=jnp.zeros((), jnp.int32),
        end=end,
        end_opt=optimizer.init(end) if config.terminals else None,
    )


def _optimizers(
    config: CriticConfig,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Adam for the critics; for the policy with a cosine to zero over the whole training."""
    cosine = optax.cosine_decay_schedule(config.learning_rate, config.total_steps)
    return optax.adam(config.learning_rate), optax.adam(cosine)


def step(
    config: CriticConfig, stats: tokens.Stats, state: IQLState, data: dataset.Dataset
) -> tuple[IQLState, Metrics]:
    """Draw a batch and update on it."""
    key = jax.random.fold_in(state.key, state.step)
    batch = dataset.sample_transitions(key, data, config.batch_size)
    return update(state, config, stats, batch)


def update(
    state: IQLState, config: CriticConfig, stats: tokens.Stats, batch: dataset.Transitions
) -> tuple[IQLState, Metrics]:
    """Update all networks once on one batch, raw observations."""
    obs, next_obs = (tokens.encode(stats, x) for x in (batch.obs, batch.next_obs))
    next_v = _apply_v(state.v, next_obs)
    target_q = _least(_apply_q(state.target_q, obs, batch.actions), state, config)
    optimizer, policy_optimizer = _optimizers(config)

    v, v_opt, v_loss, advantage = optim.descend(
        lambda p: _v_loss(p, config, obs, target_q), state.v, state.v_opt, optimizer
    )
    q, q_opt, q_loss, q_mean = optim.descend(
        lambda p: _q_loss(p, config, obs, batch, next_v), state.q, state.q_opt, optimizer
    )
    unit = config.unit
    metrics = {
        "critic/q_loss": unit**2 * q_loss,
        "critic/v_loss": unit**2 * v_loss,
        "critic/q_mean": unit * q_mean,
        "critic/v_mean": unit * jnp.mean(target_q - advantage),
        "critic/advantage_std": unit * jnp.std(advantage),
    }
    if config.policy:
        policy, policy_opt, metrics["critic/policy_loss"], _ = optim.descend(
            lambda p: _policy_loss(p, config, obs, batch.actions, unit * advantage),
            *(state.policy, state.policy_opt, policy_optimizer),
        )
        state = state.replace(policy=policy, policy_opt=policy_opt)
    if config.terminals:
        end, end_opt, metrics["critic/end_loss"], _ = optim.descend(
            lambda p: _end_loss(p, next_obs, batch.terminals), state.end, state.end_opt, optimizer
        )
        state = state.replace(end=end, end_opt=end_opt)
    target = optax.incremental_update(q, state.target_q, config.polyak)
    state = state.replace(q=q, target_q=target, v=v, q_opt=q_opt, v_opt=v_opt, step=state.step + 1)
    return state, metrics


def _least(q: Array, state: IQLState, config: CriticConfig) -> Array:
    """Least of the members that are drawn for an update, [members, ...] -> [...]."""
    if config.least_of in (0, config.members):
        return q.min(0)
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)
    drawn = jax.random.choice(key, config.members, (config.least_of,), replace=False)
    return q[drawn].min(0)


def _end_loss(params: dict, next_obs: Array, terminals: Array) -> tuple[Array, Array]:
    """Negative log likelihood of the data's terminals, and the mean probability of one.

    A terminal is a property of the state that it led to. Where the data lack that state, the last
    one before it stands for it (`dataset.sample_transitions`).
    """
    logits = _apply_v(params, next_obs)
    loss = optax.sigmoid_binary_cross_entropy(logits, terminals)
    return jnp.mean(loss), jnp.mean(jax.nn.sigmoid(logits))


def _v_loss(params: dict, config: CriticConfig, obs: Array, target_q: Array) -> tuple[Array, Array]:
    """Expectile error of V against the target Q of the data's actions, and the advantage."""
    advantage = target_q - _apply_v(params, obs)
    return jnp.mean(losses.expectile_error(advantage, config.expectile)), advantage


def _q_loss(
    params: dict, config: CriticConfig, obs: Array, batch: dataset.Transitions, next_v: Array
) -> tuple[Array, Array]:
    """Squared error of Q, averaged over batch and members (not summed over them); mean of Q."""
    rewards = batch.rewards / config.unit
    target = rewards + config.discount * (1.0 - batch.terminals) * next_v
    q = _apply_q(params, obs, batch.actions)
    return jnp.mean((q - target) ** 2), jnp.mean(q)


def _policy_loss(
    params: dict, config: CriticConfig, obs: Array, actions: Array, advantage: Array
) -> tuple[Array, Array]:
    """Advantage-weighted negative log likelihood; and the mean log likelihood."""
    widths = _widths(params["mlp"])
    mean, std = critics.NormalActor(widths[-1], widths[:-1]).apply({"params": params}, obs)
    log_prob = jax.scipy.stats.norm.logpdf(actions, mean, std).sum(-1)
    loss = losses.advantage_weighted(log_prob, advantage, config.policy_temperature)
    return jnp.mean(loss), jnp.mean(log_prob)


def _apply_q(params: dict, obs: Array, action: Array) -> Array:
    mlp = params["member_0"]
    network = critics.Q(_widths(mlp)[:-1], len(params), "norm_0" in mlp)
    return network.apply({"params": params}, obs, action)


def _apply_v(params: dict, obs: Array) -> Array:
    network = critics.V(_widths(params["mlp"])[:-1], "norm_0" in params["mlp"])
    return network.apply({"params": params}, obs)


def _widths(mlp: dict) -> tuple[int, ...]:
    """Layer widths of an MLP: parameters alone tell what they are for."""
    layers = sum(name.startswith("layer_") for name in mlp)
    return tuple(mlp[f"layer_{i}"]["bias"].shape[-1] for i in range(layers))
