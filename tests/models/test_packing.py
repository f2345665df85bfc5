"""Encoding two windows packed into one sequence gives what encoding each by itself gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import masks
from mtm_jax.config import MaskConfig, ModelConfig, PretrainConfig
from mtm_jax.models import layout, packing
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import dataset, pretrain, program
from mtm_jax.types import DataInfo, ModalitySpec, Trajectories

WINDOW, BATCH = 4, 64
SPECS = (
    ModalitySpec("states", 3),
    ModalitySpec("returns", 5, 2, "categorical"),
    ModalitySpec("actions", 2, head="tanh_normal"),
    ModalitySpec("rewards", 1),
)
NAMES = [m.name for m in SPECS]
LENGTH = 5 * WINDOW  # tokens of a window

pack = jax.jit(lambda visible: (packing.pack(visible), packing.fits(visible)))


def draw(seed=0, **patterns):
    """One mask for each window of a batch, and where its visible tokens go."""
    config = MaskConfig(patterns=tuple((patterns or {"random_autoregressive": 1.0}).items()))
    keys = jax.random.split(jax.random.key(seed), BATCH)
    visible = jax.jit(jax.vmap(lambda k: masks.draw(k, config, WINDOW, NAMES)))(keys)
    return visible, pack(layout.flat_visible(SPECS, visible))


def inputs():
    random = np.random.default_rng(1)
    shapes = {m.name: (WINDOW, m.features) for m in SPECS} | {"returns": (WINDOW, 2, 5)}
    return {m: random.normal(size=(BATCH, *s)).astype("f") for m, s in shapes.items()}


def make(dropout=0.0):
    sizes = {"width": 8, "heads": 2, "encoder_layers": 1, "positions": "orthogonal"}
    network = model.make_model(ModelConfig(SPECS, WINDOW, dropout=dropout, **sizes))
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda s: random.normal(0.0, 0.4, s.shape).astype("f"), shapes)
    return network, params


@pytest.fixture(scope="module")
def differentiate():
    """Outputs, with the gradients of a generic function of them in parameters and inputs."""
    network, params = make()

    def total(params, tokens, visible, packed):
        outputs = network.apply(params, tokens, visible, None, packed)
        return sum(jnp.sin(3.0 * leaf).mean() for leaf in jax.tree.leaves(outputs)), outputs

    compiled = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    return lambda *args: compiled(params, *args)


def blind_and_full():
    """Half of the windows show nothing, the others everything."""
    shown = (np.arange(BATCH) % 2 == 0)[:, None]
    visible = {m: np.broadcast_to(shown, (BATCH, WINDOW)) for m in NAMES}
    return visible, pack(layout.flat_visible(SPECS, visible))


@pytest.mark.parametrize(
    "case",
    [draw, lambda: draw(random_autoregressive=1.0, rcbc=1.0, id=1.0), blind_and_full],
    ids=["random_autoregressive", "prompts", "blind_and_full"],
)
def test_outputs_and_gradients_are_those_of_windows_apart(differentiate, case):
    visible, (packed, fit) = case()
    assert fit
    found = differentiate(inputs(), visible, packed)
    expected = differentiate(inputs(), visible, None)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * (1e-3 + np.abs(b).max()))


def test_values_of_hidden_inputs_change_nothing(differentiate):
    visible, (packed, _) = draw()
    clean = differentiate(inputs(), visible, packed)
    shown = {m: np.reshape(v, (*v.shape, 1)) for m, v in visible.items()}
    shown["returns"] = shown["returns"][..., None]
    poisoned = {m: np.where(shown[m], x, np.nan) for m, x in inputs().items()}
    for a, b in zip(
        jax.tree.leaves(differentiate(poisoned, visible, packed)),
        jax.tree.leaves(clean),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_every_visible_token_has_a_slot_and_attends_to_its_own_window():
    visible, (packed, _) = draw()
    flat = np.asarray(layout.flat_visible(SPECS, visible)).ravel()
    slots, token = np.asarray(packed.slot), np.asarray(packed.token)
    np.testing.assert_array_equal(slots < token.size, flat)
    np.testing.assert_array_equal(token[slots[flat]], np.flatnonzero(flat))
    assert (token < flat.size).sum() == flat.sum()
    windows = np.where(token < flat.size, token // LENGTH, -1).reshape(-1, LENGTH)
    same = windows[:, :, None] == windows[:, None, :]
    np.testing.assert_array_equal(packed.attention_mask, same)


def test_windows_fit_exactly_if_the_fullest_with_the_emptiest_do():
    visible = np.arange(LENGTH) < np.array([3, LENGTH - 5, 5, LENGTH - 3])[:, None]
    assert pack(jnp.asarray(visible))[1]
    visible[0, 3] = True
    assert not pack(jnp.asarray(visible))[1]


@pytest.mark.parametrize(
    ("windows", "shown", "turns"),
    [(64, 10, 1), (64, 11, 2), (63, 10, None), (32, 10, None)],
)
def test_windows_are_packed_where_it_is_worthwhile_in_turns_where_they_do_not_fit(
    windows, shown, turns
):
    visible = {"states": jnp.broadcast_to(jnp.arange(LENGTH) < shown, (windows, LENGTH))}

    def compute(taken, packed):
        if packed is None:
            return None
        held = jnp.zeros(windows * LENGTH + 1, int).at[packed.token].set(1)[:-1]
        return jnp.int32(1), taken.astype(int), held.reshape(windows, LENGTH)

    found = packing.sum_over_turns(SPECS[:1], visible, compute)
    if turns is None:
        assert found is None
        return
    assert found[0] == turns
    np.testing.assert_array_equal(found[1], 1)  # every window is taken once
    np.testing.assert_array_equal(found[2], visible["states"])  # with all that is visible of it


def test_gathering_rows_has_the_gradient_of_indexing():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    source, target = jnp.array([2, 4, 0]), jnp.array([2, 3, 0, 3])  # 4 and 3: none

    def indexed(x):
        return jnp.concatenate([x, jnp.zeros((1, 3))])[source]

    found, back = jax.vjp(lambda x: packing.gather_rows(x, source, target), x)
    expected, derived = jax.vjp(indexed, x)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(back(found + 1.0)[0], derived(found + 1.0)[0])


def test_dropout_acts_in_packed_sequences_too():
    network, params = make(dropout=0.5)
    visible, (packed, _) = draw()
    apply = jax.jit(network.apply)
    first, second = (
        apply(params, inputs(), visible, jax.random.key(k), packed)["rewards"] for k in range(2)
    )
    assert np.isfinite(first).all()
    assert (first != second).any(axis=(1, 2)).all()


EVERYTHING = MaskConfig(patterns=(("random", 1.0),), fractions=(1.0,))


@pytest.mark.parametrize("shown", [MaskConfig(), EVERYTHING], ids=["one_turn", "two_turns"])
def test_training_packs_and_unpacks_every_visible_token(monkeypatch, shown):
    specs = tuple(ModalitySpec(m, 1) for m in NAMES)
    config = PretrainConfig(ModelConfig(specs, WINDOW, 8, 2), shown, batch_size=BATCH)
    data = dataset.make_dataset(trajectories(), WINDOW)

    def apply(params, tokens, visible, key, packed):
        x = [jnp.where(visible[m][..., None], tokens[m], 0.0) for m in NAMES]
        x = jnp.concatenate(x, axis=-2) * params["scale"]
        if packed is not None:
            x = 2.0 * packing.encode(packed, x, lambda rows, _: rows / 2.0)
        taken.append(packed is not None)
        return dict(zip(NAMES, jnp.split(x, len(NAMES), axis=-2), strict=True))

    def run():
        network = model.make_model(config.model)._replace(
            init=lambda key: {"scale": jnp.ones(())}, apply=apply
        )
        training = pretrain.make_training(config, network, dataset.compute_stats(data))
        compiled = program.make_program(training)
        return compiled.run(compiled.init(jax.random.key(0)), data, 3)[1]

    taken = []
    found = run()
    assert set(taken) == {True}
    taken.clear()
    monkeypatch.setattr(packing, "sum_over_turns", lambda *a: a[2](None, None))
    expected = run()
    assert taken == [False]
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)


def trajectories(steps=200):
    random = np.random.default_rng(0)
    return Trajectories(
        observations=random.normal(size=(steps, 1)).astype("f"),
        actions=random.uniform(-0.9, 0.9, (steps, 1)).astype("f"),
        rewards=random.normal(size=steps).astype("f"),
        terminals=np.zeros(steps, bool),
        lengths=np.full(steps // 20, 20),
        final_observations=np.zeros((steps // 20, 1), np.float32),
        info=DataInfo("test", "test", "Hopper-v5", 20, (-1.0,), (1.0,)),
        available={},
    )
