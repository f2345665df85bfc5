"""Where the time goes: the parts of a training step and of a decision, each compiled by itself.

A part does what its share of the whole does, on arrays of the same shapes: forwards, and where the
whole takes gradients backwards too. Compiled apart, parts read and write memory that the whole may
keep in registers, so that their times do not add up to the whole's exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import config_dict

from experiments.bench import decisions, layers, training_steps, workloads
from mtm_jax.models import layout
from mtm_jax.models import packing as gathering
from mtm_jax.models import trajectory_model as model
from mtm_jax.planning import compiled, forward, options, worlds
from mtm_jax.training import dataset, objective, optim


def works(
    config: config_dict.ConfigDict, products: training_steps.Products
) -> training_steps.Works:
    """Parts at every width, of a training step and of a decision by returns."""
    sizes = config.parts
    for dtype in workloads.dtypes(config):
        for width, batch in zip(sizes.widths, sizes.batches, strict=True):
            window = decisions.network_of().config.window
            point = training_steps.Point(width, batch, window)
            settings = training_steps.plain_settings(point, config.encoder_layers, dtype)
            prepared = training_steps.prepare(settings)
            name = workloads.name("parts", "training", dtype, **point._asdict())
            count = config.training.steps
            whole = functools.partial(training_steps.steps, lambda p=prepared: p, count, name)
            step = [whole, *_makes(name, training_parts(prepared))]
            plan = _decision(config, prepared.network)
            yield workloads.Work(f"parts, width {width}", [step, plan])


def training_parts(prepared: training_steps.Prepared) -> dict[str, tuple[Callable, tuple]]:
    """List the parts of a training step with what each is called with."""
    settings, network, data, stats, compiled = prepared
    state, key = compiled.init(jax.random.key(0)), jax.random.key(1)
    size, window = settings.batch_size, network.config.window

    def sample(key: Array, data: dataset.Dataset) -> dataset.Windows:
        return dataset.sample_windows(key, data, size, window)

    def mask(key: Array, windows: dataset.Windows) -> objective.Batch:
        return objective.make_batch(key, settings, network, stats, windows)

    windows = jax.jit(sample)(key, data)
    batch = jax.jit(mask)(key, windows)
    flat = layout.flat_visible(network.config.modalities, batch.visible)
    whole = jnp.ones((*flat.shape, network.config.width), network.config.compute_dtype)
    optimizer = optim.make_optimizer(settings.optim)

    def gather(x: Array, flat: Array) -> Array:
        return gathering.through(gathering.pair(flat)[0], x, lambda rows, _: rows)

    def update(grads: dict, opt_state: optax.OptState, params: dict) -> tuple:
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, optax.global_norm(grads)

    return {
        "windows": (sample, (key, data)),
        "masks, encoding": (mask, (key, windows)),
        "gathering": (_both_ways(gather, 1), (whole, flat)),
        **{
            part: (_both_ways(function, 2), arguments)
            for part, (function, arguments) in layers.parts(
                settings, network, state.params, batch, whole
            ).items()
        },
        "optimiser": (update, (state.params, state.opt_state, state.params)),
    }


def _both_ways(function: Callable, count: int) -> Callable:
    """Compute a function and its gradient by the first `count` arguments."""

    def both(*arguments: Any) -> tuple:
        rest = arguments[count:]
        out, back = jax.vjp(lambda *x: function(*x, *rest), *arguments[:count])
        return out, back(jax.tree.map(lambda x: x + 1.0, out))  # nothing that XLA can foresee

    return both


def _decision(config: config_dict.ConfigDict, network: model.Model) -> Sequence[Callable]:
    """A decision by returns and its parts."""
    plan, history = config.plan, config.plan.history
    point = decisions.Point("m3pc_m", plan.candidates, plan.horizon, 1, True)

    def whole() -> workloads.Program:
        program = decisions.compile_point(network, point, history)
        return program._replace(name=program.name | {"section": "parts"})

    settings = point._asdict() | {"width": network.config.width}
    del settings["method"], settings["pruned"]
    name = workloads.name("parts", "m3pc_m", network.config.compute_dtype, **settings)
    return [whole, *_makes(name, decision_parts(network, point, history))]


def decision_parts(
    network: model.Model, point: decisions.Point, history: int
) -> dict[str, tuple[Callable, tuple]]:
    """List the parts of a decision with what each is called with."""
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


def _makes(name: dict, parts: dict[str, tuple[Callable, tuple]]) -> list[Callable]:
    def make(part: str, function: Callable, arguments: tuple) -> workloads.Program:
        call, memory = workloads.compile_call(function, arguments)
        return workloads.Program(name | {"program": part}, call, bytes=memory)

    return [functools.partial(make, part, *what) for part, what in parts.items()]
