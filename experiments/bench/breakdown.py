"""Where the time goes: the parts of a training step and of a decision, each compiled by itself.

A part computes what its share of the whole computes, on arrays of the same shapes, and its gradient
where the whole takes one. Compiled by themselves, parts read and write memory that the whole may
keep in registers, so their times do not add up exactly to that of the whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import config_dict

from experiments.bench import decisions, layers, timing, training_steps, workloads
from mtm_jax.config import OptimConfig, PretrainConfig
from mtm_jax.models import layout, packing
from mtm_jax.models import trajectory_model as model
from mtm_jax.planning import compiled, forward, options, worlds
from mtm_jax.training import dataset, objective, optim

Parts = dict[str, tuple[Callable, tuple]]  # part -> function and its arguments


def section(
    config: config_dict.ConfigDict, matmuls: timing.Matmuls
) -> Iterator[workloads.Workload]:
    """List the parts of a training step and of a decision by M3PC-M, at every width."""
    window = decisions.network_of().config.window
    for dtype in workloads.dtypes(config):
        for width, batch in zip(config.parts.widths, config.parts.batches, strict=True):
            point = training_steps.Point(width, batch, window)
            settings = training_steps.plain_settings(point, config.encoder_layers, dtype)
            prepared = training_steps.prepare(settings)
            groups = [_step(config, prepared, point), _decision(config, prepared.network)]
            yield workloads.Workload(f"parts, width {width}", groups)


def _step(
    config: config_dict.ConfigDict,
    prepared: training_steps.Prepared,
    point: training_steps.Point,
) -> Sequence[workloads.Make]:
    """Build a training step and its parts."""
    dtype = prepared.settings.model.compute_dtype
    name = workloads.row_name("parts", "training", dtype, **point._asdict())
    count = config.training.steps
    whole = functools.partial(training_steps.steps, lambda: prepared, count, name)
    return [whole, *_makes(name, training_parts(prepared))]


def training_parts(prepared: training_steps.Prepared) -> Parts:
    """List the parts of a training step."""
    settings, network, data, stats, program = prepared
    state, key = program.init(jax.random.key(0)), jax.random.key(1)
    sample = functools.partial(_sample, settings)
    mask = functools.partial(_mask, settings, network, stats)
    windows = jax.jit(sample)(key, data)
    batch = jax.jit(mask)(key, windows)
    flat = layout.flat_visible(network.config.modalities, batch.visible)
    whole = jnp.ones((*flat.shape, network.config.width), network.config.compute_dtype)
    in_layers = layers.parts(settings, network, state.params, batch, whole)
    return {
        "windows": (sample, (key, data)),
        "masks, encoding": (mask, (key, windows)),
        "gathering": (_with_gradient(_gather, 1), (whole, flat)),
        **{
            part: (_with_gradient(function, 2), arguments)
            for part, (function, arguments) in in_layers.items()
        },
        "optimiser": (
            functools.partial(_update, settings.optim),
            (state.params, state.opt_state, state.params),
        ),
    }


def _sample(settings: PretrainConfig, key: Array, data: dataset.Dataset) -> dataset.Windows:
    return dataset.sample_windows(key, data, settings.batch_size, settings.model.window)


def _mask(
    settings: PretrainConfig, network: model.Model, stats: dict, key: Array, windows: Any
) -> objective.Batch:
    return objective.make_batch(key, settings, network, stats, windows)


def _gather(x: Array, flat: Array) -> Array:
    """Move visible tokens to the rows of the encoder and back."""
    return packing.encode(packing.pack(flat), x, lambda rows, _: rows)


def _update(config: OptimConfig, grads: dict, opt_state: optax.OptState, params: dict) -> tuple:
    updates, opt_state = optim.make_optimizer(config).update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, optax.global_norm(grads)


def _with_gradient(function: Callable, count: int) -> Callable:
    """Compute a function and its gradient with respect to the first `count` arguments."""

    def both(*arguments: Any) -> tuple:
        rest = arguments[count:]
        out, back = jax.vjp(lambda *x: function(*x, *rest), *arguments[:count])
        return out, back(jax.tree.map(lambda x: x + 1.0, out))  # nothing that XLA can foresee

    return both


def _decision(config: config_dict.ConfigDict, network: model.Model) -> Sequence[workloads.Make]:
    """Build a decision by M3PC-M and its parts."""
    plan, history = config.plan, config.plan.history
    point = decisions.Point("m3pc_m", plan.candidates, plan.horizon, 1, True)

    def whole() -> workloads.Program:
        program = decisions.compile_point(network, point, history)
        return program._replace(name=program.name | {"section": "parts"})

    settings = point._asdict() | {"width": network.config.width}
    del settings["method"], settings["pruned"]
    name = workloads.row_name("parts", "m3pc_m", network.config.compute_dtype, **settings)
    return [whole, *_makes(name, decision_parts(network, point, history))]


def decision_parts(network: model.Model, point: decisions.Point, history: int) -> Parts:
    """List the parts of a decision."""
    weights, contexts, target, key = decisions.random_arguments(network, point, history)
    context = jax.tree.map(lambda x: x[0], contexts)
    plan = decisions.plan_of(point, history)
    steps = options.make_steps(plan, training_steps.LIMIT, critic_fn=None, explore=False)

    def world(weights: compiled.Weights) -> worlds.World:
        return compiled.make_world(network, None, weights, plan, plan.horizon, scored_only=True)

    def propose(weights: compiled.Weights, key: Array) -> Array:
        policy = world(weights).policy(context, target)
        return forward.propose(key, policy, plan.candidates, plan.spread)

    def predict(weights: compiled.Weights, actions: Array) -> worlds.Rollout:
        return world(weights).rollout(context, actions)

    def choose(rollout: worlds.Rollout, actions: Array) -> Array:
        values = steps.value_fn(None, rollout, actions, context.t)
        utilities = steps.score_fn(rollout.rewards, values, jnp.int32(plan.horizon))
        return steps.choose_fn(key, steps.weigh_fn(utilities), actions[:, 0])

    actions = jnp.zeros((plan.candidates, plan.horizon, context.actions.shape[-1]))
    rollout = jax.tree.map(lambda x: jnp.ones(x.shape), jax.eval_shape(predict, weights, actions))
    return {
        "proposing": (propose, (weights, key)),
        "predicting": (predict, (weights, actions)),
        "choosing": (choose, (rollout, actions)),
    }


def _makes(name: dict, parts: Parts) -> list[workloads.Make]:
    def make(part: str, function: Callable, arguments: tuple) -> workloads.Program:
        call, cost = workloads.compile_call(function, arguments)
        return workloads.Program(name | {"program": part}, call, cost=cost)

    return [functools.partial(make, part, *what) for part, what in parts.items()]
