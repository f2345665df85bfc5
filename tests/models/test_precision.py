"""What is computed in bfloat16 and what is not; layers computed again for their gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax.config import ModelConfig, OptimConfig
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import losses, optim
from mtm_jax.types import ModalitySpec

WINDOW, BATCH = 3, 16
SPECS = (
    ModalitySpec("states", 3),
    ModalitySpec("actions", 2, head="tanh_normal"),
    ModalitySpec("rewards", 1),
)
CONFIG = ModelConfig(SPECS, WINDOW, 8, 2, encoder_layers=1, dropout=0.0)
# Softmax, logarithms of densities, normalisation and sums over all that is a loss.
EXACT = {"exp", "log", "log1p", "rsqrt", "tanh", "reduce_max", "div", "argmax"}


def make(**changes):
    network = model.make_model(dataclasses.replace(CONFIG, **changes))
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda s: random.normal(0.0, 0.4, s.shape).astype("f"), shapes)
    return network, params


def inputs():
    random = np.random.default_rng(1)
    tokens = {m.name: random.normal(size=(BATCH, WINDOW, m.features)).astype("f") for m in SPECS}
    return tokens, {m.name: random.random((BATCH, WINDOW)) < 0.6 for m in SPECS}


def differentiate(network):
    """Outputs and gradients of a loss that reads all outputs."""

    def total(params, tokens, visible, key):
        outputs = network.apply(params, tokens, visible, key)
        nll = losses.negative_log_likelihood(outputs["actions"], jnp.tanh(tokens["actions"]))
        errors = [losses.squared_error(outputs[m], tokens[m]).mean() for m in ("states", "rewards")]
        return nll.mean() + sum(errors), outputs

    return jax.grad(total, has_aux=True)


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for sub in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(sub, "jaxpr", sub)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_bfloat16_is_for_products_and_their_activations_alone():
    network, params = make(compute_dtype="bfloat16")
    jaxpr = jax.make_jaxpr(differentiate(network))(params, *inputs(), None)
    kinds = {}
    for eqn in equations(jaxpr.jaxpr):
        dtypes = {v.aval.dtype for v in eqn.invars if hasattr(v.aval, "dtype")}
        kinds.setdefault(eqn.primitive.name, set()).update(map(str, dtypes))
    assert "bfloat16" in kinds["dot_general"]
    found = {name for name in EXACT if name in kinds}
    assert {"exp", "rsqrt", "div", "reduce_max"} <= found
    assert {name for name in found if "bfloat16" in kinds[name]} == set()


@pytest.fixture(scope="module")
def plain():
    """Gradients and outputs in float32."""
    network, params = make()
    return jax.jit(differentiate(network))(params, *inputs(), None)


@pytest.mark.slow
def test_gradients_and_moments_stay_in_float32_and_close(plain):
    network, params = make(compute_dtype="bfloat16")
    exact, _ = plain
    rough, _ = jax.jit(differentiate(network))(params, *inputs(), None)
    assert {str(g.dtype) for g in jax.tree.leaves(rough)} == {"float32"}
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(rough), strict=True):
        assert np.linalg.norm(a - b) <= 0.05 * np.linalg.norm(a) + 1e-3
    optimizer = optim.make_optimizer(OptimConfig())
    _, state = optimizer.update(rough, optimizer.init(params), params)
    kinds = {x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)}
    assert kinds == {jnp.dtype("float32")}


def test_layers_computed_again_give_the_same_numbers(plain):
    (network, _), (again, params) = make(), make(remat=True)
    shapes = [jax.eval_shape(n.init, jax.random.key(0)) for n in (network, again)]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    found = jax.jit(differentiate(again))(params, *inputs(), None)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())


def test_layers_are_computed_again_where_it_is_asked_for():
    def kept(**changes):
        network, params = make(**changes)
        jaxpr = jax.make_jaxpr(differentiate(network))(params, *inputs(), jax.random.key(0))
        return [e for e in equations(jaxpr.jaxpr) if e.primitive.name in ("remat2", "checkpoint")]

    assert not kept(dropout=0.3)
    assert len(kept(dropout=0.3, remat=True)) >= CONFIG.encoder_layers + CONFIG.decoder_layers
