"""Pretraining learns, counts real tokens only, compiles once, and resumes bit for bit."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax import distributions, masks
from mtm_jax.config import LossConfig, MaskConfig, ModelConfig, OptimConfig, PretrainConfig
from mtm_jax.io import checkpoint
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import dataset, objective, pretrain, program
from mtm_jax.training import validation as held_out
from mtm_jax.types import DataInfo, ModalitySpec, Trajectories

WINDOW, S, A, BINS, CHUNK = 4, 3, 2, 5, 4
LAST_KEYS = {
    program.FINITE,
    "train/loss",
    "train/gradient_norm",
    "train/states",
    "train/returns",
    "train/actions",
}
M3PC_KEYS = {"train/rewards", "train/nll", "train/entropy", "train/visible_actions", "train/sigma"}

Setup = collections.namedtuple("Setup", "config model stats data program applications")


def trajectories(available=None):
    """Episodes of a rotation under a policy: every token follows from the others."""
    rng = np.random.default_rng(0)
    lengths = np.array([3, 12, 12, 12, 12, 12])  # the first is shorter than the window
    episodes = []
    for length in lengths:
        state, states = rng.choice([-1.0, 1.0], S), []
        for _ in range(length):
            states.append(state)
            state = state * [1.0, -1.0, 1.0]
        episodes.append(np.stack(states))
    states = np.concatenate(episodes).astype(np.float32)
    return Trajectories(
        observations=states,
        actions=np.tanh(states[:, :A]),
        rewards=states @ np.float32([1.0, 0.3, -0.5]),
        terminals=np.zeros(len(states), bool),
        lengths=lengths,
        final_observations=np.zeros((len(lengths), S), np.float32),
        info=DataInfo("test", "test", "Hopper-v5", 20, (-1.0,) * A, (1.0,) * A),
        available=available or {},
    )


def specs(variant):
    if variant == "bins":
        dims = {"states": S, "returns": 1, "actions": A}
        return tuple(ModalitySpec(m, BINS, d, "categorical") for m, d in dims.items())
    head = "tanh_normal" if variant == "m3pc" else "continuous"
    found = [ModalitySpec("states", S), ModalitySpec("returns", 1)]
    found.append(ModalitySpec("actions", A, head=head))
    return (*found, *([ModalitySpec("rewards", 1)] if variant == "m3pc" else []))


def make_setup(
    variant, dropout=0.0, compute_dtype="float32", patterns=("random_autoregressive", "rcbc")
):
    config = PretrainConfig(
        model=ModelConfig(specs(variant), WINDOW, 16, 2, 1, 1, 4, dropout, compute_dtype),
        masks=MaskConfig(patterns=tuple((name, 1.0) for name in patterns)),
        loss=LossConfig(sigma_learning_rate=1e-3),
        # Unclipped, the likelihood's first gradients would slow Adam down for long.
        optim=OptimConfig(learning_rate=1e-2, warmup_steps=4, total_steps=1000, clip_norm=1.0),
        batch_size=32,
    )
    applications = []
    plain = model.make_model(config.model)

    def apply(*args):
        applications.append(None)
        return plain.apply(*args)

    network = plain._replace(apply=apply)
    data = dataset.make_dataset(trajectories(), WINDOW)
    stats = dataset.compute_stats(data)
    compiled = program.make_program(pretrain.make_training(config, network, stats))
    return Setup(config, network, stats, data, compiled, applications)


@pytest.fixture(scope="module")
def m3pc():
    return make_setup("m3pc", dropout=0.1)


def run(setup, chunks, length=CHUNK, state=None):
    """The state after some compiled calls, with the metrics of each."""
    state = setup.program.init(jax.random.key(0)) if state is None else state
    rows = []
    for _ in range(chunks):
        state, row = setup.program.run(state, setup.data, length)
        rows.append(jax.device_get(row))
    return state, rows


@pytest.fixture(scope="module")
def m3pc_rows(m3pc):
    """Metrics of 64 steps."""
    return run(m3pc, 16)[1]


def assert_same_bits(a, b):
    def raw(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        assert raw(x).dtype == raw(y).dtype, path
        assert raw(x).tobytes() == raw(y).tobytes(), jax.tree_util.keystr(path)


def assert_falls(rows, names):
    for name in names:
        first, last = (np.mean([row[name] for row in part]) for part in (rows[:2], rows[-3:]))
        assert last < 0.7 * first, (name, first, last)


def test_m3pc_learns(m3pc_rows):
    assert_falls(m3pc_rows, ("train/states", "train/returns", "train/rewards"))
    assert_falls(m3pc_rows, ("train/visible_actions", "train/nll"))


@pytest.fixture(scope="module")
def mtm():
    return make_setup("mtm")


def test_mtm_learns_continuous_tokens(mtm):
    assert_learns_everything(mtm)


@pytest.mark.slow
def test_mtm_learns_discrete_tokens():
    assert_learns_everything(make_setup("bins"))


def assert_learns_everything(setup):
    _, rows = run(setup, 16)
    assert_falls(rows, ("train/states", "train/returns", "train/actions", "train/loss"))
    assert set(rows[0]) == LAST_KEYS
    total = rows[0]["train/states"] + rows[0]["train/returns"] + rows[0]["train/actions"]
    assert rows[0]["train/loss"] == pytest.approx(total, rel=1e-5)


def test_m3pc_metrics(m3pc_rows):
    row = m3pc_rows[0]
    assert set(row) == LAST_KEYS | M3PC_KEYS
    parts = sum(row[f"train/{m}"] for m in ("states", "returns", "actions", "rewards"))
    assert row["train/loss"] == pytest.approx(parts, rel=1e-5)
    assert np.isfinite(list(row.values())).all()


def test_repeated_runs_compile_once(m3pc, m3pc_rows):
    before = len(m3pc.applications)
    assert before > 0
    state, _ = run(m3pc, 3)
    run(m3pc, 1, state=state)
    assert len(m3pc.applications) == before


def test_every_step_has_its_own_randomness(m3pc):
    start = m3pc.program.init(jax.random.key(0))
    later = m3pc.program.init(jax.random.key(0)).replace(step=start.step + CHUNK)
    rows = [run(m3pc, 1, state=state)[1][0] for state in (start, later)]
    assert rows[0]["train/states"] != rows[1]["train/states"]


def test_two_halves_equal_the_whole_bit_for_bit(mtm):
    whole, _ = run(mtm, 1, length=CHUNK)
    halves, _ = run(mtm, 2, length=CHUNK // 2)
    assert int(whole.step) == int(halves.step) == CHUNK
    assert_same_bits(whole, halves)


def test_a_run_that_is_restored_ends_bit_for_bit_as_one_that_is_not(m3pc, tmp_path):
    undisturbed, _ = run(m3pc, 4)
    state, _ = run(m3pc, 2)
    step = int(state.step)
    checkpoint.Checkpoints(tmp_path).save(step, {"params": state.params}, state, {})
    fresh = m3pc.program.init(jax.random.key(9))
    restored = checkpoint.Checkpoints(tmp_path).restore_train(step, fresh)
    assert_same_bits(restored, state)
    compiled = len(m3pc.applications)
    resumed, _ = run(m3pc, 2, state=restored)
    assert_same_bits(resumed, undisturbed)
    assert len(m3pc.applications) == compiled  # what is read back has the types it had


def with_spread(state, raw_log_std):
    """The state with an action head that predicts a mode of 0 and this spread everywhere."""
    params = jax.tree.map(jnp.copy, state.params)
    for name, bias in (("loc", 0.0), ("log_std", raw_log_std)):
        head = params["head_actions"][name]
        head |= {"kernel": 0.0 * head["kernel"], "bias": jnp.full_like(head["bias"], bias)}
    return state.replace(params=params)


# The ends of the range of log_std are -5 and 2; in its middle the entropy is above -3.
@pytest.mark.parametrize(("raw_log_std", "rises"), [(-20.0, True), (0.0, False)])
def test_sigma_rises_below_the_target_entropy_and_falls_above(m3pc, raw_log_std, rises):
    start = with_spread(m3pc.program.init(jax.random.key(0)), raw_log_std)
    before = float(start.log_sigma)
    state, rows = run(m3pc, 1, state=start)
    assert (rows[0]["train/entropy"] < -3.0) == rises
    assert (float(state.log_sigma) > before) == rises
    assert abs(float(state.log_sigma) - before) == pytest.approx(CHUNK * 1e-3, rel=0.05)


def test_sigma_rests_while_no_action_is_hidden():
    setup = make_setup("m3pc", patterns=("fd",))
    start = jax.device_get(setup.program.init(jax.random.key(0)).sigma_opt_state)
    state, rows = run(setup, 1)
    assert rows[0]["train/nll"] == rows[0]["train/entropy"] == 0.0
    assert rows[0]["train/gradient_norm"] > 0.0
    assert float(state.log_sigma) == np.log(np.float32(setup.config.loss.initial_sigma))
    assert_same_bits(state.sigma_opt_state, start)


@pytest.mark.slow
def test_a_bfloat16_step_keeps_float32_parameters_and_its_loss(m3pc, m3pc_rows):
    state, rows = run(make_setup("m3pc", dropout=0.1, compute_dtype="bfloat16"), 1)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, rows)))
    difference = abs(rows[0]["train/loss"] / m3pc_rows[0]["train/loss"] - 1.0)
    assert 0.0 < difference < 0.05


# What the loss sees.


def test_a_joint_likelihood_is_that_of_a_dimension_times_their_number(m3pc):
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (5, WINDOW, A)
    dist = distributions.TanhNormal(*(jax.random.normal(k, shape) for k in keys[:2]))
    actions = jnp.tanh(jax.random.normal(keys[2], shape))
    noise = jax.random.normal(keys[3], (3, *shape))
    counted = {"actions": jnp.ones(shape[:2], bool)}
    visible = {"actions": jnp.zeros(shape[:2], bool).at[:, ::2].set(True)}
    batch = objective.whole_batch({"actions": actions}, visible, counted)
    batch = batch.replace(noise=jnp.moveaxis(noise, 1, 0))
    found = {}
    for reduction in ("joint", "per_dimension"):
        loss = dataclasses.replace(m3pc.config.loss, entropy_reduction=reduction)
        config = dataclasses.replace(m3pc.config, loss=loss)
        total, metrics = objective.action_loss(config, dist, batch, "actions", jnp.float32(0.3))
        found[reduction] = {k.removeprefix("train/"): float(v) for k, v in metrics.items()}
        parts = found[reduction]
        expected = parts["visible_actions"] + parts["nll"] - 0.3 * parts["entropy"]
        assert float(total) == pytest.approx(expected, rel=1e-5)
    joint, each = found["joint"], found["per_dimension"]
    assert joint["nll"] == pytest.approx(A * each["nll"], rel=1e-5)
    assert joint["entropy"] == pytest.approx(A * each["entropy"], rel=1e-5)
    assert joint["visible_actions"] == each["visible_actions"]


@pytest.fixture(scope="module")
def loss_and_grads(m3pc):
    """Loss, metrics and gradients of one batch under given masks."""
    params = m3pc.model.init(jax.random.key(0))

    @jax.jit
    def compute(windows, visible):
        batch = objective.mask_batch(m3pc.model, m3pc.stats, windows, visible)
        batch = objective.add_noise(jax.random.key(1), m3pc.config, m3pc.model, batch)

        def total(params):
            outputs = m3pc.model.apply(params, batch.tokens, batch.visible)
            return objective.loss(m3pc.config, m3pc.model, outputs, batch, jnp.float32(0.1))

        return jax.value_and_grad(total, has_aux=True)(params)

    return compute


@pytest.fixture(scope="module")
def windows(m3pc):
    """Two padded windows and two whole ones; the first and the third lack actions."""
    data = dataset.make_dataset(trajectories(), WINDOW)
    index = jnp.array([0, 0, 5, 9])
    found = dataset.take_windows(data, index, WINDOW)
    assert not found.valid[:2].all() and found.valid[2:].all()
    return found._replace(available={"actions": jnp.array([False, True, False, True])})


def visible_where(choose):
    """A mask per window of the batch."""
    names = [m.name for m in specs("m3pc")]
    found = [choose(b) for b in range(4)]
    return {m: jnp.stack([jnp.asarray(f[m]) for f in found]) for m in names}


def random_masks():
    keys = jax.random.split(jax.random.key(3), 4)
    names = [m.name for m in specs("m3pc")]
    return visible_where(lambda b: masks.random(keys[b], WINDOW, (0.5, 0.75), names))


@pytest.mark.parametrize("poison", [np.nan, 1e6])
def test_padding_and_missing_modalities_change_nothing(loss_and_grads, windows, poison):
    visible = random_masks()
    values = dict(windows.values)
    padded = ~windows.valid[..., None]
    values = {m: jnp.where(padded, poison, v) for m, v in values.items()}
    missing = ~windows.available["actions"][:, None, None]
    values["actions"] = jnp.where(missing, poison, values["actions"])
    (clean, metrics), grads = loss_and_grads(windows, visible)
    (poisoned, poisoned_metrics), poisoned_grads = loss_and_grads(
        windows._replace(values=values), visible
    )
    assert np.isfinite(clean)
    assert_same_bits((clean, metrics, grads), (poisoned, poisoned_metrics, poisoned_grads))


def test_what_is_there_counts(loss_and_grads, windows):
    visible = random_masks()
    (clean, _), _ = loss_and_grads(windows, visible)
    for name in windows.values:
        values = windows.values | {name: windows.values[name].at[3].multiply(0.5)}
        (changed, _), _ = loss_and_grads(windows._replace(values=values), visible)
        assert changed != clean, name


def test_padding_and_missing_modalities_are_hidden_and_not_counted(m3pc, windows):
    every = visible_where(lambda b: {m: jnp.ones(WINDOW, bool) for m in masks.MODALITIES})
    batch = objective.mask_batch(m3pc.model, m3pc.stats, windows, every)
    np.testing.assert_array_equal(batch.visible["states"], windows.valid)
    np.testing.assert_array_equal(batch.counted["states"], windows.valid)
    there = windows.valid & windows.available["actions"][:, None]
    np.testing.assert_array_equal(batch.visible["actions"], there)
    np.testing.assert_array_equal(batch.counted["actions"], there)


def test_gradients_are_finite_without_hidden_actions(loss_and_grads, windows):
    visible = visible_where(lambda b: masks.prompt("fd", b, WINDOW))
    (_, metrics), grads = loss_and_grads(windows, visible)
    assert float(metrics["train/nll"]) == 0.0
    assert all(np.isfinite(g).all() for g in jax.tree.leaves((metrics, grads)))


def test_gradients_are_finite_without_a_visible_token(loss_and_grads, windows):
    visible = visible_where(lambda b: {m: jnp.zeros(WINDOW, bool) for m in masks.MODALITIES})
    (_, metrics), grads = loss_and_grads(windows, visible)
    assert float(metrics["train/visible_actions"]) == 0.0
    assert all(np.isfinite(g).all() for g in jax.tree.leaves((metrics, grads)))
    assert max(np.abs(g).max() for g in jax.tree.leaves(grads)) > 0.0


# Validation.


@pytest.fixture(scope="module")
def validate(m3pc):
    """Validation of the untrained model, by key."""
    params = m3pc.model.init(jax.random.key(0))
    compiled = held_out.make_validation(m3pc.config, m3pc.model, m3pc.stats)
    return lambda key: jax.device_get(compiled(params, m3pc.data, jax.random.key(key)))


def test_validation_names_what_each_prompt_is_read_for(validate):
    names = {f"valid/train_masks/{m}" for m in ("states", "returns", "actions", "rewards", "nll")}
    for prompt in ("rcbc", "bc", "id", "goal"):
        names |= {f"valid/{prompt}/actions", f"valid/{prompt}/nll"}
    names |= {"valid/fd/states", "valid/fd/returns", "valid/fd/rewards"}
    names |= {"valid/rp/returns", "valid/rp/rewards", "valid/pi/states"}
    row = validate(0)
    assert set(row) == names
    assert np.isfinite(list(row.values())).all()


def test_validation_depends_on_its_key_alone(validate):
    first, again, other = validate(0), validate(0), validate(1)
    assert first == again
    assert all(first[name] != other[name] for name in first)


@pytest.mark.parametrize(("on_hidden", "error"), [(True, 4.0), (False, 0.0)])
def test_validation_errors_are_over_hidden_tokens(m3pc, windows, on_hidden, error):
    def apply(params, inputs, visible):
        off_by_two = {m: (v != on_hidden)[..., None] for m, v in visible.items()}
        return {m: jnp.where(off_by_two[m], x + 2.0, x) for m, x in inputs.items()}

    network = m3pc.model._replace(apply=apply, config=ModelConfig(specs("mtm"), WINDOW, 16, 2))
    batch = objective.mask_batch(network, m3pc.stats, windows, random_masks())
    found = held_out.hidden_errors(network, {}, batch)
    assert {m: set(errors) for m, errors in found.items()} == {
        m: {m} for m in ("states", "returns", "actions")
    }
    assert all(float(v) == pytest.approx(error) for v in jax.tree.leaves(found))
