"""Random network distillation (Burda et al. 2018): rewards SAC for reaching unfamiliar states.

A predictor learns the output of a fixed random network on the states that are visited; its error
is large where there were few. One update: draw a batch -> its errors replace the rewards ->
SAC's update -> predictor step.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from mtm_jax.config import RNDConfig, SACConfig
from mtm_jax.models import networks
from mtm_jax.training import optim, sac
from mtm_jax.training.program import Metrics, Training

# Lifts the initial scale of our layers, U(+-1/sqrt(fan_in)), to He's, so that the fixed network
# keeps the size of its input; a smaller one is nearly linear and soon learnt everywhere.
_TARGET_SCALE = float(np.sqrt(6.0))
_EPSILON = 1e-8


class Moments(flax.struct.PyTreeNode):
    """Running mean and mean square of [..., D]: of all batches at first, then of recent ones."""

    mean: Array  # [D]
    square: Array  # [D]
    batches: Array  # [] float32, batches seen

    @property
    def std(self) -> Array:
        """Standard deviation, [D]."""
        return jnp.sqrt(jnp.maximum(self.square - self.mean**2, 0.0)) + _EPSILON


class RNDState(flax.struct.PyTreeNode):
    """Everything that training needs besides the replay buffer."""

    sac: sac.SACState
    predictor: dict
    target: dict  # fixed
    predictor_opt: optax.OptState
    obs_moments: Moments  # [S]
    error_moments: Moments  # []

    @property
    def actor(self) -> dict:
        """Parameters of the latest actor."""
        return self.sac.actor

    @property
    def actor_average(self) -> dict:
        """Parameters of the averaged actor."""
        return self.sac.actor_average

    @property
    def step(self) -> Array:
        """Updates done."""
        return self.sac.step


class RND(NamedTuple):
    """What an update needs besides state and data."""

    config: RNDConfig
    network: networks.MLP  # of both predictor and target
    optimizer: optax.GradientTransformation  # of the predictor

    def errors(self, params: dict, state: RNDState, obs: Array) -> Array:
        """Mean squared error of a predictor on each observation: [n, S] -> [n]."""
        scaled = (obs - state.obs_moments.mean) / state.obs_moments.std
        scaled = jnp.clip(scaled, -self.config.clip, self.config.clip)
        expected = self.network.apply({"params": state.target}, scaled)
        return jnp.mean((self.network.apply({"params": params}, scaled) - expected) ** 2, axis=-1)


def make_rnd(config: RNDConfig) -> RND:
    """Build the network of predictor and target, and the predictor's optimiser."""
    network = networks.MLP((*config.hidden, config.features))
    return RND(config, network, optax.adam(config.learning_rate))


def make_training(
    sac_config: SACConfig, config: RNDConfig, obs_dim: int, action_dim: int
) -> Training:
    """Describe the training in one environment; its data are a `sac.Replay`.

    The rewards in the replay buffer are not used.
    """
    algorithm, explorer = make_rnd(config), sac.make_sac(sac_config, action_dim)
    init = functools.partial(init_state, algorithm=algorithm, explorer=explorer, obs_dim=obs_dim)
    shared = sac_config, config
    return Training(init, functools.partial(step, algorithm, explorer), shared=shared)


def init_state(key: Array, algorithm: RND, explorer: sac.SAC, obs_dim: int) -> RNDState:
    """Draw predictor, target and the state of SAC."""
    sac_key, rnd_key = jax.random.split(key)
    predictor_key, target_key = jax.random.split(rnd_key)
    obs = jnp.zeros((1, obs_dim))
    predictor = algorithm.network.init(predictor_key, obs)["params"]
    target = algorithm.network.init(target_key, obs)["params"]
    return RNDState(
        sac=sac.init_state(sac_key, explorer, obs_dim),
        predictor=predictor,
        target=jax.tree.map(lambda x: _TARGET_SCALE * x, target),
        predictor_opt=algorithm.optimizer.init(predictor),
        obs_moments=zero_moments((obs_dim,)),
        error_moments=zero_moments(()),
    )


def step(
    algorithm: RND, explorer: sac.SAC, state: RNDState, replay: sac.Replay
) -> tuple[RNDState, Metrics]:
    """Draw a batch, reward it and update SAC on it."""
    sample_key, *update_keys = sac.step_keys(state.sac)
    batch = sac.sample(sample_key, replay, explorer.config.batch_size)
    state, batch, metrics = reward_step(state, algorithm, batch)
    inner, sac_metrics = sac.update(state.sac, explorer, batch, update_keys)
    return state.replace(sac=inner), metrics | sac_metrics


def zero_moments(shape: tuple[int, ...]) -> Moments:
    """Moments of no batch yet."""
    return Moments(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(()))


def update_moments(moments: Moments, values: Array, rate: float) -> Moments:
    """Count in a batch, [n, D]; it weighs 1 / batches seen, and never less than `rate`."""
    batches = moments.batches + 1.0
    weight = jnp.maximum(1.0 / batches, rate)
    mean = moments.mean + weight * (values.mean(0) - moments.mean)
    square = moments.square + weight * ((values**2).mean(0) - moments.square)
    return Moments(mean, square, batches)


def reward_step(
    state: RNDState, algorithm: RND, batch: sac.Transitions
) -> tuple[RNDState, sac.Transitions, Metrics]:
    """Replace the rewards of a batch by the predictor's errors, then move the predictor."""
    rate = algorithm.config.running_rate
    state = state.replace(obs_moments=update_moments(state.obs_moments, batch.next_obs, rate))

    def loss(params: dict) -> tuple[Array, Array]:
        errors = algorithm.errors(params, state, batch.next_obs)
        return errors.mean(), errors

    predictor, predictor_opt, mean, errors = optim.descend(
        loss, state.predictor, state.predictor_opt, algorithm.optimizer
    )
    moments = update_moments(state.error_moments, errors, rate)
    rewards = errors / moments.std
    state = state.replace(predictor=predictor, predictor_opt=predictor_opt, error_moments=moments)
    metrics = {"rnd/error": mean, "rnd/reward": rewards.mean(), "rnd/reward_max": rewards.max()}
    return state, batch.replace(rewards=rewards), metrics
