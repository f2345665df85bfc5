"""Random network distillation (Burda et al. 2018): rewards SAC for reaching unfamiliar states.

A predictor learns the output of a fixed random network on the states that are visited; its error
is large where there were few. One update: draw a batch -> its errors replace the rewards ->
SAC's update -> predictor step.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from mtm_jax.config import RNDConfig, SACConfig
from mtm_jax.models import networks
from mtm_jax.training import sac
from mtm_jax.training import trainer as training

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


class Program(NamedTuple):
    """What an update needs besides its state and data."""

    config: RNDConfig
    network: networks.MLP  # of both predictor and target
    optimizer: optax.GradientTransformation

    def errors(self, params: dict, state: RNDState, obs: Array) -> Array:
        """Mean squared error of a predictor on each observation: [n, S] -> [n]."""
        scaled = (obs - state.obs_moments.mean) / state.obs_moments.std
        scaled = jnp.clip(scaled, -self.config.clip, self.config.clip)
        expected = self.network.apply({"params": state.target}, scaled)
        return jnp.mean((self.network.apply({"params": params}, scaled) - expected) ** 2, axis=-1)


def make_program(config: RNDConfig) -> Program:
    """Build predictor, target and the predictor's optimiser."""
    network = networks.MLP((*config.hidden, config.features))
    return Program(config, network, optax.adam(config.learning_rate))


def make_trainer(
    sac_config: SACConfig, config: RNDConfig, obs_dim: int, action_dim: int
) -> training.Trainer:
    """Build the program for one environment's dimensions; `run` takes a `sac.Replay`.

    The rewards in the replay buffer are not used.
    """
    program = make_program(config)
    sac_networks = sac.make_networks(sac_config, action_dim)
    optimizer = sac.make_optimizer(sac_config)

    def init(key: Array) -> RNDState:
        sac_key, rnd_key = jax.random.split(key)
        inner = sac.init_state(sac_key, sac_networks, optimizer, obs_dim, action_dim)
        return init_state(rnd_key, program, inner, obs_dim)

    def step(state: RNDState, replay: sac.Replay) -> tuple[RNDState, training.Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.sac.key, state.sac.step), 3)
        batch = sac.sample(keys[0], replay, sac_config.batch_size)
        state, batch, metrics = reward_step(state, program, batch)
        inner, sac_metrics = sac.update(
            state.sac, sac_config, sac_networks, optimizer, batch, keys[1:]
        )
        return state.replace(sac=inner), metrics | sac_metrics

    return training.make_trainer(init, step)


def init_state(key: Array, program: Program, inner: sac.SACState, obs_dim: int) -> RNDState:
    """Draw predictor and target around the state of SAC."""
    predictor_key, target_key = jax.random.split(key)
    obs = jnp.zeros((1, obs_dim))
    predictor = program.network.init(predictor_key, obs)["params"]
    target = program.network.init(target_key, obs)["params"]
    return RNDState(
        sac=inner,
        predictor=predictor,
        target=jax.tree.map(lambda x: _TARGET_SCALE * x, target),
        predictor_opt=program.optimizer.init(predictor),
        obs_moments=zero_moments((obs_dim,)),
        error_moments=zero_moments(()),
    )


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
    state: RNDState, program: Program, batch: sac.Transitions
) -> tuple[RNDState, sac.Transitions, training.Metrics]:
    """Replace the rewards of a batch by the predictor's errors, then move the predictor."""
    rate = program.config.running_rate
    state = state.replace(obs_moments=update_moments(state.obs_moments, batch.next_obs, rate))

    def loss(params: dict) -> tuple[Array, Array]:
        errors = program.errors(params, state, batch.next_obs)
        return errors.mean(), errors

    (mean, errors), grads = jax.value_and_grad(loss, has_aux=True)(state.predictor)
    updates, predictor_opt = program.optimizer.update(grads, state.predictor_opt)
    moments = update_moments(state.error_moments, errors, rate)
    rewards = errors / moments.std
    state = state.replace(
        predictor=optax.apply_updates(state.predictor, updates),
        predictor_opt=predictor_opt,
        error_moments=moments,
    )
    metrics = {"rnd/error": mean, "rnd/reward": rewards.mean(), "rnd/reward_max": rewards.max()}
    return state, batch.replace(rewards=rewards), metrics
