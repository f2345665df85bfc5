"""A training stops at the very step at which something is no longer finite, and says where."""

import errno
import re

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import pretrain
from experiments.runtime import cli
from experiments.training import build, nonfinite
from mtm_jax.errors import UserError
from mtm_jax.training import dataset, program
from mtm_jax.training import pretrain as pretrain_lib


class State(flax.struct.PyTreeNode):
    """A number that doubles, and its optimiser."""

    total: jax.Array
    moments: optax.OptState
    key: jax.Array
    step: jax.Array


def make(overflows):
    """Its total is too large for float32 in step 128; or its moments are not finite in step 5."""
    optimizer = optax.adam(0.1)

    def init(key):
        total = jnp.float32(1.0)
        return State(total, optimizer.init(total), key, jnp.zeros((), jnp.int32))

    def step(state, data):
        gradient = jnp.where(state.step == 4, jnp.inf, 1.0) if not overflows else jnp.float32(1.0)
        _, moments = optimizer.update(gradient, state.moments)
        total = state.total * data if overflows else state.total
        state = state.replace(total=total, moments=moments, step=state.step + 1)
        return state, {"train/total": total}

    return program.Training(init, step)


def guarded(training, folder, advice=""):
    return nonfinite.GuardedProgram([nonfinite.Guard(training, folder, advice=advice)])


def begin(training, seed=0):
    """The state of a group of one."""
    return program.stack([program.make_program(training).init(jax.random.key(seed))])


@pytest.mark.parametrize(
    ("overflows", "calls", "says"),
    [
        (True, 2, "in step 128: train/total is inf, total has 1 of 1 not finite; the state"),
        (False, 0, "in step 5: moments/0/mu has 1 of 1 not finite, moments/0/nu has 1 of 1"),
    ],
)
def test_the_first_bad_step_is_named_and_the_state_before_it_kept(tmp_path, overflows, calls, says):
    training = make(overflows)
    compiled = guarded(training, tmp_path, advice="do better")
    states, data = begin(training), jnp.float32(2.0)
    for _ in range(calls):
        states, (row,) = compiled.run(states, data, 50)
        assert set(row) == {"train/total"}
    with pytest.raises(UserError, match=re.escape(f"went wrong {says}")) as refused:
        compiled.run(states, data, 50)
    assert str(refused.value).endswith("; do better")
    (path,) = (tmp_path / "debug").iterdir()
    before, batch = nonfinite.read(path, program.member(begin(training, seed=1), 0))
    bad_step = 128 if overflows else 5
    assert (path.name, int(before.step), batch) == (f"before_{bad_step:08d}.npz", bad_step - 1, {})
    assert float(before.total) == (2.0**127 if overflows else 1.0)
    assert jax.random.key_data(before.key).tolist() == [0, 0]
    assert not program.make_locate(training)(before, data, 1).finite


def test_it_is_said_at_once_that_a_training_went_wrong(tmp_path, capsys, monkeypatch):
    """Finding the step takes a program of its own, which may compile for a minute."""

    def locate(training, mesh):
        assert capsys.readouterr().out.startswith(
            "training went wrong between steps 0 and 9: the state is not finite; looking for"
        )
        return find(training, mesh)

    find = program.make_locate
    monkeypatch.setattr(program, "make_locate", locate)
    training = make(False)
    with pytest.raises(UserError, match="in step 5"):
        guarded(training, tmp_path).run(begin(training), jnp.float32(2.0), 9)


def test_a_full_disk_does_not_hide_what_went_wrong(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    training = make(False)
    said = r"went wrong in step 5: .*could not be stored \(.*No space left"
    with pytest.raises(UserError, match=said):
        guarded(training, tmp_path).run(begin(training), jnp.float32(2.0), 9)
    assert not list((tmp_path / "debug").iterdir())


def test_what_is_finite_passes(tmp_path):
    training = make(True)
    state = program.member(begin(training), 0)
    found = program.make_locate(training)(state, jnp.float32(2.0), 30)
    assert (int(found.steps), bool(found.finite), float(found.after.total)) == (30, True, 2.0**30)
    nonfinite.check(20, 10, [{"train/loss": 1.0}])
    with pytest.raises(UserError, match="between steps 10 and 20: train/loss is nan"):
        nonfinite.check(20, 10, [{"train/loss": 1.0}, {"train/loss": np.nan, "train/states": 1.0}])


def test_bad_rows_of_a_batch_are_numbered():
    batch = {"obs": np.zeros((4, 2)), "rewards": np.zeros(4)}
    assert nonfinite.bad_rows(batch) == "its batch is finite"
    batch["obs"][3, 1] = np.nan
    batch["rewards"][1] = np.inf
    assert nonfinite.bad_rows(batch) == "rows 1, 3 of its batch are not finite"


def test_a_file_that_is_no_state_is_refused(tmp_path):
    state = program.member(begin(make(True)), 0)
    with pytest.raises(UserError, match="cannot be read"):
        nonfinite.read(tmp_path / "none.npz", state)
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(UserError, match="cannot be read"):
        nonfinite.read(tmp_path / "text.npz", state)
    np.savez(tmp_path / "other.npz", **{"state/total": np.zeros(3)})
    with pytest.raises(UserError, match="another model: 6 arrays differ, the first is state/total"):
        nonfinite.read(tmp_path / "other.npz", state)


# --- pretraining ---

TINY = {"steps": 30, "batch_size": 4, "log_every": 30, "validate_every": 1000, "save_every": 1000}
TINY |= {"model.width": 8, "model.heads": 2, "model.encoder_layers": 1, "model.window": 4}
TINY |= {"eval.history": 2, "optim.warmup_fraction": 0.1}
BAD_ROW = 30


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """A run that met a state that is not finite: its settings, its data, what it said."""
    folder = tmp_path_factory.mktemp("spoiled")
    rng = np.random.default_rng(0)
    names = {"observations": (400, 4), "actions": (400, 2), "rewards": (400,)}
    arrays = {name: rng.uniform(-1.0, 1.0, shape) for name, shape in names.items()}
    np.savez(folder / "mine.npz", **arrays, terminals=np.zeros(400, bool), lengths=[100] * 4)

    def settings(**more):
        given = TINY | {"source": folder / "mine.npz", "out": folder / "run"} | more
        argv = [f"--config.{k}={v}" for k, v in given.items()]
        argv.append("--config=configs/pretrain.py:custom-toy,preset=paper")
        return cli.parse(argv, "configs/pretrain.py")

    patch, load = pytest.MonkeyPatch(), build.load_data

    def load_spoiled(config):
        data = load(config)
        states = data.train.values["states"].at[BAD_ROW, 1].set(jnp.nan)
        return data._replace(
            train=data.train.replace(values=data.train.values | {"states": states})
        )

    patch.setattr(build, "load_data", load_spoiled)
    with pytest.raises(UserError) as refused:
        pretrain.main(settings())
    yield settings, load_spoiled(settings()), str(refused.value)
    patch.undo()


def first_batch_with(data, row, batch_size, window):
    """Draw windows as the program does, until one covers a row."""
    _, key = jax.random.split(jax.random.key(0))
    for step in range(30):
        window_key = jax.random.split(jax.random.fold_in(key, step), 4)[0]
        count = data.window_starts.shape[0]
        index = jax.random.randint(window_key, (batch_size,), 0, count)
        starts = np.asarray(data.window_starts)[np.asarray(index)]
        hit = (starts <= row) & (row < starts + window)
        if hit.any():
            return step + 1, np.flatnonzero(hit), starts[hit]
    raise AssertionError


@pytest.mark.slow
def test_pretraining_names_step_tensors_and_windows(spoiled):
    settings, data, said = spoiled
    step, windows, starts = first_batch_with(data.train, BAD_ROW, 4, 4)
    blamed = [f"{w} (training row {s})" for w, s in zip(windows, starts, strict=True)]
    assert f"went wrong in step {step}: " in said
    assert f"of the batch, windows {', '.join(blamed)} are not finite" in said
    assert "train/states is nan" in said
    assert f"debug/before_{step:08d}.npz" in said


@pytest.mark.slow
def test_a_stored_step_is_repeated_tensor_by_tensor(spoiled, capsys):
    settings, data, _ = spoiled
    step, windows, _ = first_batch_with(data.train, BAD_ROW, 4, 4)
    file = f"{settings().out}/debug/before_{step:08d}.npz"
    pretrain.main(settings(debug_batch=file))
    said = capsys.readouterr().out
    assert f"step {step}: of the batch, windows {windows[0]} (" in said
    assert "  tokens/states has 1 of 64 not finite" in said or len(windows) > 1
    assert "losses/train/states has 1 of 1 not finite" in said
    assert "  gradients/" in said
    assert "  parameters/" not in said


@pytest.mark.slow
def test_the_windows_that_are_stored_are_those_of_the_step(spoiled):
    settings, data, _ = spoiled
    step, _, _ = first_batch_with(data.train, BAD_ROW, 4, 4)
    file = f"{settings().out}/debug/before_{step:08d}.npz"
    with np.load(file) as arrays:
        key = jax.random.wrap_key_data(arrays["state/key"])
        now = pretrain_lib.TrainState({}, (), 0.0, (), key, arrays["state/step"])
        drawn = dataset.sample_windows(pretrain_lib.step_keys(now)[0], data.train, 4, 4)
        np.testing.assert_array_equal(arrays["batch/values/states"], drawn.values["states"])
        np.testing.assert_array_equal(arrays["batch/valid"], drawn.valid)
