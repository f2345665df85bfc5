"""Asking for hidden tokens: what is refused, and candidates in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax.config import ModelConfig
from mtm_jax.errors import UserError
from mtm_jax.models import pruned
from mtm_jax.models import trajectory_model as model_lib
from mtm_jax.models.pruned import Placed
from mtm_jax.types import ModalitySpec

SLOTS = jnp.arange(2)


def own_tokens(total, features):
    values = np.random.default_rng(total).normal(size=(total, 2, features)).astype(np.float32)
    return Placed(jnp.asarray(values), SLOTS, jnp.array([True, False]))


def ask(own):
    """Something of every candidate that depends on all that is its own."""
    total = sum(jnp.where(p.present[:, None], p.values, 0.0).sum((-1, -2)) for p in own.values())
    return {"a": total[:, None] * jnp.arange(1.0, 4.0), "b": -total}


@pytest.mark.parametrize("total", [1, 4, 7, 10])
def test_chunks_give_what_all_candidates_give_at_once(total):
    own = {"actions": own_tokens(total, 3), "states": own_tokens(total, 2)}
    found, expected = jax.jit(lambda own: pruned.by_chunks(ask, own, size=3))(own), ask(own)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_chunks_may_be_asked_for_nothing():
    """A plan of one step asks for no later state."""
    own = {"actions": own_tokens(5, 3)}
    nothing = lambda own: own["actions"].values[:, 2:]  # noqa: E731
    found = jax.jit(lambda own: pruned.by_chunks(nothing, own, size=2))(own)
    assert found.shape == (5, 0, 3)


def test_one_chunk_holds_no_more_candidates_than_about_its_size():
    seen = []

    def watched(own):
        seen.append(own["actions"].values.shape[0])
        return ask(own)

    lowered = jax.jit(lambda own: pruned.by_chunks(watched, own, size=128))
    text = lowered.lower({"actions": own_tokens(625, 3)}).as_text()
    assert 125 in seen
    assert "while" in text


def test_many_candidates_of_a_model_answer_like_few():
    specs = (ModalitySpec("states", 3), ModalitySpec("actions", 2))
    model = model_lib.make_model(ModelConfig(specs, 2, 8, 2, 1, 1))
    params = jax.jit(model.init)(jax.random.key(0))
    shared = {"states": Placed(jnp.ones((1, 3)), SLOTS[:1], jnp.array([True]))}
    query = jax.jit(lambda own: model.query(params, shared, own, {"states": SLOTS[1:]}))
    actions = own_tokens(200, 2)
    found = query({"actions": actions})["states"]
    expected = query({"actions": actions._replace(values=actions.values[150:153])})["states"]
    assert found.shape == (200, 1, 3)
    np.testing.assert_allclose(found[150:153], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "asked", "sentence"),
    [
        (ModalitySpec("states", 9, 3, "categorical"), "states", "states of this model are categ"),
        (ModalitySpec("states", 3), "rewards", "rewards: this model has no such modality"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(spec, asked, sentence):
    model = model_lib.make_model(ModelConfig((spec,), 2, 8, 2, 1, 1))
    shared = {"states": Placed(jnp.ones((1, 3)), SLOTS[:1], jnp.array([True]))}
    with pytest.raises(UserError, match=sentence):
        model.query({}, shared, None, {asked: SLOTS[1:]})


def test_chunks_of_environments_side_by_side_stay_apart():
    own = [own_tokens(total, 3) for total in (7, 7)]
    own[1] = own[1]._replace(values=own[1].values + 1.0)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *own)
    found = jax.jit(jax.vmap(lambda o: pruned.by_chunks(ask, {"actions": o}, size=3)))(stacked)
    for e, tokens in enumerate(own):
        np.testing.assert_allclose(found["a"][e], ask({"actions": tokens})["a"], rtol=1e-6)
