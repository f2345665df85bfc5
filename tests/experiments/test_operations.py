"""The counts of multiply-adds are those of the programs that are run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import operations
from mtm_jax import tokens
from mtm_jax.agents import planner
from mtm_jax.config import CriticConfig, ModelConfig, PlanConfig
from mtm_jax.models import trajectory_model as model_lib
from mtm_jax.planning import compiled, forward, options, roles
from mtm_jax.planning import context as context_lib
from mtm_jax.training import dataset, iql
from mtm_jax.types import ModalitySpec

SPECS = (
    *(ModalitySpec("states", 5), ModalitySpec("returns", 1)),
    *(ModalitySpec("actions", 2, head="tanh_normal"), ModalitySpec("rewards", 1)),
)
STATS = {m.name: tokens.identity_stats(m.features) for m in SPECS}
CRITIC = CriticConfig(hidden=(6, 7), members=3)
PLAN = {"discount": 0.99, "candidates": 9, "history": 3, "horizon": 2}


def make(width=16, layers=(2, 1)):
    depths = dict(zip(("encoder_layers", "decoder_layers"), layers, strict=True))
    model = model_lib.make_model(ModelConfig(SPECS, 6, width, 2, dropout=0.0, **depths))
    context = context_lib.begin(jnp.zeros(5), 2, 6).replace(slot=jnp.int32(3))
    return model, jax.eval_shape(model.init, jax.random.key(0)), context


def traced_products(jaxpr, read=None):
    """Multiply-adds of a traced program, without those whose results are never read.

    Of branches the cheapest counts.
    """
    live = set(jaxpr.outvars) if read is None else read
    total = 0
    for eqn in reversed(jaxpr.eqns):
        wanted = [v in live for v in eqn.outvars]
        if not any(wanted):
            continue
        live |= {v for v in eqn.invars if not hasattr(v, "val")}
        if eqn.primitive.name == "dot_general":
            (left, _), _ = eqn.params["dimension_numbers"]
            contracted = [eqn.invars[0].aval.shape[axis] for axis in left]
            total += int(np.prod(eqn.outvars[0].aval.shape) * np.prod(contracted))
        assert eqn.primitive.name != "while"
        inner = [traced_products(j) for j in jax.core.jaxprs_in_params(eqn.params)]
        choose = min if eqn.primitive.name == "cond" else sum
        total += eqn.params.get("length", 1) * choose(inner)
    return total


def decide(model, plan, context):
    """The decision as a function of the parameters of model and critic."""

    def chosen(params, critic):
        weights = compiled.Weights(params, STATS)
        world = compiled.make_world(model, None, weights, plan, plan.horizon, scored_only=True)
        steps = options.make_steps(plan, 1000, planner.least_q, explore=False)
        return forward.plan(
            *(jax.random.key(0), context, jnp.float32(0.5)),
            world=world,
            value_fn=functools.partial(steps.value_fn, (critic, STATS["states"])),
            score_fn=steps.score_fn,
            weigh_fn=steps.weigh_fn,
            choose_fn=steps.choose_fn,
            num_candidates=plan.candidates,
            length=jnp.int32(plan.horizon),
            spread=plan.spread,
        ).action

    return chosen


@pytest.mark.parametrize(
    ("layers", "settings"),
    [
        ((2, 1), {}),
        ((1, 2), {"guidance": "critic"}),
        ((1, 1), {"readout": "fd"}),
        ((1, 2), {"pruned": False}),
        ((1, 2), {"guidance": "critic", "pruned": False}),
        ((1, 1), {"readout": "rp", "guidance": "critic"}),
        ((1, 1), {"horizon": 1, "history": 0}),
        ((1, 1), {"horizon": 1, "guidance": "critic"}),
    ],
    ids=str,
)
def test_decisions_are_counted_as_they_are_computed(layers, settings):
    model, params, context = make(layers=layers)
    plan = PlanConfig(**PLAN | settings)
    critic = jax.eval_shape(
        lambda k: iql.raw_params(iql.init_state(k, CRITIC, 5, 2), CRITIC), jax.random.key(0)
    )
    traced = jax.make_jaxpr(decide(model, plan, context))(params, critic)
    counted = operations.decision(model.config, plan, CRITIC)
    assert counted == traced_products(traced.jaxpr)


def test_a_policy_is_counted_as_it_is_computed():
    model, params, context = make()
    act = jax.make_jaxpr(lambda p: roles.act(model, p, STATS, context, jnp.float32(0.5)))
    assert operations.policy(model.config) == traced_products(act(params).jaxpr)


def test_a_training_step_is_counted_as_it_is_computed():
    """Each product is traced once forward, and once for each of its gradients."""
    model, params, _ = make()
    batch = {m.name: jnp.zeros((4, 6, m.features)) for m in SPECS}
    visible = {m.name: jnp.ones((4, 6), bool) for m in SPECS}

    def loss(params):
        return sum(x.sum() for x in jax.tree.leaves(model.apply(params, batch, visible)))

    traced = jax.make_jaxpr(jax.value_and_grad(loss))(params)
    assert operations.training_step(model.config, 4) == traced_products(traced.jaxpr)


def test_a_critic_update_is_counted_as_it_is_computed():
    config = CriticConfig(hidden=(6, 7), members=3, batch_size=4)
    state = jax.eval_shape(lambda key: iql.init_state(key, config, 5, 2), jax.random.key(0))
    rows, scalars = jnp.zeros((4, 5)), jnp.zeros(4)
    batch = dataset.Transitions(rows, jnp.zeros((4, 2)), scalars, rows, scalars)
    traced = jax.make_jaxpr(lambda s, b: iql.update(s, config, STATS["states"], b))(state, batch)
    assert operations.critic_update(config, 5, 2) == traced_products(traced.jaxpr)


def test_xla_counts_little_more_where_there_is_no_loop():
    """It also counts what is no product; in narrow models that is much."""
    model, params, context = make(width=256)
    plan = PlanConfig(**PLAN)
    lowered = jax.jit(lambda p: decide(model, plan, context)(p, None)).lower(params)
    ratio = lowered.cost_analysis()["flops"] / (2 * operations.decision(model.config, plan))
    assert 1.0 < ratio < 1.1


def test_the_pruned_planner_needs_a_fraction_of_the_products():
    config = ModelConfig(SPECS, width=512)

    def products(**settings):
        return operations.decision(config, PlanConfig(readout="fd", **settings))

    pruned, plain = products(), products(pruned=False)
    assert 2.0 < plain / pruned < 4.0
    doubled = products(candidates=1250)
    assert 1.9 * pruned < doubled < 2 * pruned
