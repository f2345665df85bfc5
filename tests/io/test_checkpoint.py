"""Checkpoints come back bit for bit, and what is damaged or foreign is named."""

import errno
import gc
import logging
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
import zipfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtm_jax import tokens
from mtm_jax.agents import critic_files, pretrained
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, manifest, orbax_files, trees
from mtm_jax.training import iql


class State(NamedTuple):
    """A training state in small."""

    params: dict
    opt_state: optax.OptState
    scale: jax.Array
    key: jax.Array
    step: jax.Array


def make_state(width=3, seed=0):
    kernel = jax.random.normal(jax.random.key(seed), (2, width))
    params = {"layer_0": {"kernel": kernel, "bias": jnp.arange(width, dtype=jnp.bfloat16)}}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    _, opt_state = optimizer.update(params, optimizer.init(params), params)
    return State(params, opt_state, jnp.float32(0.1), jax.random.key(seed + 7), jnp.int32(5))


def model_of(state):
    return {"params": state.params, "stats": {"states": tokens.identity_stats(2)}}


def save(folder, step=5, state=None):
    state = make_state() if state is None else state
    checkpoint.Checkpoints(folder).save(step, model_of(state), state, {"note": "small"})
    return state


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run folder with one checkpoint; copy it to change it."""
    folder = tmp_path_factory.mktemp("run")
    save(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def bits(leaf):
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    data = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    return str(leaf.dtype), data.shape, data.tobytes()


def test_a_training_state_comes_back_bit_for_bit(saved):
    state = make_state()
    restored = checkpoint.Checkpoints(saved).restore_train(5, make_state(seed=1))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert [bits(x) for x in jax.tree.leaves(restored)] == [bits(x) for x in jax.tree.leaves(state)]
    assert bits(state.key) != bits(make_state(seed=1).key)
    assert jax.random.uniform(restored.key) == jax.random.uniform(state.key)


def test_the_model_comes_back_alone(saved):
    model = checkpoint.Checkpoints(saved).restore_model(5)
    kernel = make_state().params["layer_0"]["kernel"]
    np.testing.assert_array_equal(model["params"]["layer_0"]["kernel"], kernel)
    np.testing.assert_array_equal(model["stats"]["states"]["std"], [1.0, 1.0])


def test_meta_says_what_was_given_and_the_step(saved):
    meta = checkpoint.Checkpoints(saved).restore_meta(5)
    assert (meta["note"], meta["step"]) == ("small", 5)


def test_the_newest_two_are_kept(tmp_path):
    for step in (5, 10, 15):
        save(tmp_path, step)
    assert checkpoint.Checkpoints(tmp_path).steps() == [10, 15]


def array_files(folder: pathlib.Path, item: str) -> list[pathlib.Path]:
    files = [f for f in (folder / "checkpoints" / "5" / item).rglob("*") if f.is_file()]
    return [f for f in files if f.parent.name == "d" and f.stat().st_size > 0]


def flip(path: pathlib.Path, where: float) -> None:
    """Invert some bytes."""
    data = bytearray(path.read_bytes())
    at = int(where * (len(data) - 1))
    data[at : at + 8] = bytes(255 - b for b in data[at : at + 8])
    path.write_bytes(data)


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("item", ["model", "train"])
def test_a_damaged_array_file_is_refused(copied, item, where):
    files = array_files(copied, item)
    assert files
    for file in files:
        flip(file, where)
    with pytest.raises(UserError, match=r"checkpoints/5.*(damaged|cannot be read)"):
        restore(copied, item)


def restore(folder, item):
    checkpoints = checkpoint.Checkpoints(folder)
    if item == "meta":
        return checkpoints.restore_meta(5)
    return (
        checkpoints.restore_model(5)
        if item == "model"
        else checkpoints.restore_train(5, make_state())
    )


@pytest.mark.parametrize("item", ["model", "train", "meta"])
def test_a_cut_or_missing_part_is_refused(copied, item):
    for file in (copied / "checkpoints" / "5" / item).rglob("*"):
        if file.is_file() and file.name != "commit_success.txt":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"checkpoints/5.*(damaged|cannot be read)"):
        restore(copied, item)
    shutil.rmtree(copied / "checkpoints" / "5" / item)
    with pytest.raises(UserError, match=r"checkpoints/5.*(damaged|cannot be read)"):
        restore(copied, item)


@pytest.mark.parametrize("damaged", ["d", "manifest.ocdbt"])
def test_nothing_is_printed_besides_the_error(copied, damaged, monkeypatch, caplog, capfd):
    """Other arrays are still being read when orbax gives up, and end in errors of their own."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(str(args.exc_value)))
    model = copied / "checkpoints" / "5" / "model"
    for file in (model / damaged).iterdir() if damaged == "d" else [model / damaged]:
        file.write_bytes(b"")
    for _ in range(5):
        with pytest.raises(UserError, match="cannot be read") as refused:
            restore(copied, "model")
        assert len(str(refused.value)) < 600 and "\n" not in str(refused.value)
        del refused
        gc.collect()
    time.sleep(0.1)
    assert (unraisable, caplog.messages, capfd.readouterr().err) == ([], [], "")


def test_reads_that_fail_unasked_are_not_reported(saved, monkeypatch, caplog):
    def restore_of_orbax(*args, **kwargs):
        late = ValueError("NOT_FOUND: Error opening [tensorstore_spec='{}']")
        logging.getLogger("asyncio").error("Future exception was never retrieved", exc_info=late)
        raise Exception("first\nand second line")

    checkpoints = checkpoint.Checkpoints(saved)
    orbax = types.SimpleNamespace(restore=restore_of_orbax)
    monkeypatch.setattr(orbax_files, "_checkpointer", lambda: orbax)
    with pytest.raises(UserError, match="cannot be read \\(Exception: first and second line\\)"):
        checkpoints.restore_model(5)
    assert not caplog.messages


def test_other_failures_are_still_reported(copied, monkeypatch, caplog):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_value))
    (copied / "checkpoints" / "5" / "meta" / "metadata").write_text("{")
    with pytest.raises(UserError):
        restore(copied, "meta")
    sys.unraisablehook(types.SimpleNamespace(exc_value="another"))
    logging.getLogger("asyncio").error("another")
    assert (unraisable, caplog.messages) == (["another"], ["another"])


def test_a_restore_leaves_the_hook_of_python_alone(saved, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", hook := lambda args: None)
    restore(saved, "model")
    assert sys.unraisablehook is hook


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "lack format_version"),
        ("[1]", "lack format_version"),
        ('{"format_version": 1}', "lack digests"),
        ('{"format_version": 1, "digests": {"model": {}, "train": 3}}', "lack digests"),
        ("nonsense", "Expecting value"),
    ],
)
def test_wrong_metadata_are_refused(copied, text, message):
    (copied / "checkpoints" / "5" / "meta" / "metadata").write_text(text)
    for item in ("meta", "model"):
        with pytest.raises(UserError, match=rf"checkpoints/5 cannot be read \(.*{message}"):
            restore(copied, item)


@pytest.mark.parametrize("text", ["[]", "{}"])
def test_whatever_orbax_raises_becomes_a_sentence(copied, text):
    (copied / "checkpoints" / "5" / "model" / "_METADATA").write_text(text)
    with pytest.raises(UserError, match="checkpoints/5 cannot be read"):
        restore(copied, "model")


def test_an_array_that_is_gone_is_named(tmp_path, monkeypatch):
    honest = trees.digests
    monkeypatch.setattr(trees, "digests", lambda tree: honest(tree) | {"/more": "0" * 64})
    save(tmp_path)
    monkeypatch.setattr(trees, "digests", honest)
    with pytest.raises(UserError, match="damaged: array model/more does not match"):
        checkpoint.Checkpoints(tmp_path).restore_model(5)


def test_reading_writes_nothing(tmp_path, saved, caplog):
    assert checkpoint.Checkpoints(tmp_path, read_only=True).steps() == []
    assert not list(tmp_path.iterdir())
    before = {f: f.stat().st_mtime_ns for f in saved.rglob("*")}
    checkpoints = checkpoint.Checkpoints(saved, read_only=True)
    assert checkpoints.steps() == [5]
    checkpoints.restore_model(5)
    checkpoints.save(6, model_of(make_state()), make_state(), {})
    assert {f: f.stat().st_mtime_ns for f in saved.rglob("*")} == before
    assert not caplog.messages


def test_an_agent_only_reads(tmp_path, monkeypatch):
    opened = []
    honest = checkpoint.Checkpoints
    monkeypatch.setattr(
        checkpoint,
        "Checkpoints",
        lambda *args, **keys: opened.append(keys) or honest(*args, **keys),
    )
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="does not have a checkpoint"):
        pretrained.load(tmp_path)
    assert opened == [{"read_only": True}]


def test_a_changed_array_is_named(tmp_path, monkeypatch):
    """The digests catch what the file format does not."""
    state = make_state()
    honest = trees.digests

    def digests_of_other_data(tree):
        found = honest(tree)
        return found | {k: "0" * 64 for k in found if k.endswith("kernel")}

    monkeypatch.setattr(trees, "digests", digests_of_other_data)
    save(tmp_path, state=state)
    monkeypatch.setattr(trees, "digests", honest)
    with pytest.raises(
        UserError, match="damaged: array model/params/layer_0/kernel does not match"
    ):
        checkpoint.Checkpoints(tmp_path).restore_model(5)


def test_a_checkpoint_of_another_width_names_the_first_array_with_both_shapes(saved):
    with pytest.raises(UserError) as refused:
        checkpoint.Checkpoints(saved).restore_train(5, make_state(width=4))
    message = str(refused.value)
    assert "belongs to another model" in message
    assert "bias is (3,) there and (4,) here" in message
    assert "bias" in message


def test_a_checkpoint_of_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT_VERSION", 99)
    save(tmp_path)
    monkeypatch.undo()
    for item in ("model", "train", "meta"):
        with pytest.raises(UserError, match=r"has format version 99, this program reads 1"):
            restore(tmp_path, item)


# --- what is kept ---


def save_scored(folder, scores, **options):
    checkpoints = checkpoint.Checkpoints(folder, **options)
    state = make_state()
    for step, score in scores.items():
        checkpoints.save(step, model_of(state), state, {}, score)
    return checkpoints


def test_the_best_are_kept_besides_the_newest_two(tmp_path):
    scores = {1: 5.0, 2: 1.0, 3: None, 4: 2.0, 5: 2.0, 6: 9.0, 7: 8.0, 8: None}
    checkpoints = save_scored(tmp_path, scores, keep_best=2)
    assert checkpoints.steps() == [2, 5, 7, 8]  # of two equal ones the later
    assert checkpoints.scores() == {2: 1.0, 5: 2.0, 7: 8.0}
    assert sorted(f.name for f in (tmp_path / "checkpoints").iterdir()) == ["2", "5", "7", "8"]
    reopened = save_scored(tmp_path, {9: 0.0}, keep_best=2)
    assert reopened.steps() == [2, 8, 9]
    assert save_scored(tmp_path, {10: None}, keep_best=2).steps() == [2, 9, 10]
    assert save_scored(tmp_path, {11: None}).steps() == [10, 11]


def damage(folder, step):
    for file in (folder / "checkpoints" / str(step) / "train" / "d").iterdir():
        file.write_bytes(b"")


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three checkpoints; copy the folder to change it."""
    folder = tmp_path_factory.mktemp("three")
    save_scored(folder, {5: 0.0, 10: None, 15: None}, keep_best=1)
    return folder


def read_newest(folder, use_older=False):
    checkpoints = checkpoint.Checkpoints(folder)

    def read(step):
        return step, checkpoints.restore_train(step, make_state(seed=1))

    return checkpoints.newest(read, use_older)


def test_a_damaged_newest_checkpoint_is_named_with_the_newest_good_one(three, tmp_path):
    assert checkpoint.Checkpoints(tmp_path).newest(lambda step: step) is None
    folder = tmp_path / "run"
    shutil.copytree(three, folder)
    for bad in (15, 10):
        damage(folder, bad)
    with pytest.raises(checkpoint.Damaged) as refused:
        read_newest(folder)
    message = str(refused.value)
    assert "checkpoints/15 cannot be read" in message
    assert "the newest good one is of step 5: --config.use_older=True continues" in message
    assert checkpoint.Checkpoints(folder).steps() == [5, 10, 15]


def test_an_older_checkpoint_is_used_on_request_and_the_damaged_set_aside(three, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(three, folder)
    damage(folder, 15)
    step, state = read_newest(folder, use_older=True)
    assert step == 10
    assert [bits(x) for x in jax.tree.leaves(state)] == [
        bits(x) for x in jax.tree.leaves(make_state())
    ]
    assert checkpoint.Checkpoints(folder).steps() == [5, 10]
    assert [f.name for f in (folder / "damaged").iterdir()] == ["15"]
    save(folder, 15)  # the training comes there again
    assert read_newest(folder)[0] == 15
    damage(folder, 15)
    assert read_newest(folder, use_older=True)[0] == 10
    assert sorted(f.name for f in (folder / "damaged").iterdir()) == ["15", "15-2"]


def test_where_none_is_good_nothing_is_touched(copied):
    damage(copied, 5)
    for use_older in (False, True):
        with pytest.raises(checkpoint.Damaged, match="no older one is good: delete .*checkpoints"):
            read_newest(copied, use_older)
    assert checkpoint.Checkpoints(copied).steps() == [5]


def test_a_checkpoint_of_another_model_is_no_damage(copied):
    checkpoints = checkpoint.Checkpoints(copied)
    with pytest.raises(UserError, match="another model") as refused:
        checkpoints.newest(lambda s: checkpoints.restore_train(s, make_state(width=4)), True)
    assert not isinstance(refused.value, checkpoint.Damaged)


def test_numbers_of_64_bits_are_not_cut(tmp_path):
    train = {"words": np.array([2**63 + 1], np.uint64), "time": np.array([0.1]), "n": np.int64(3)}
    checkpoint.Checkpoints(tmp_path).save(5, {"a": np.zeros(1)}, train, {})
    found = checkpoint.Checkpoints(tmp_path).restore_train(5, jax.tree.map(np.zeros_like, train))
    for name, value in train.items():
        assert bits(np.asarray(found[name])) == bits(np.asarray(value))


def test_metadata_are_verified(copied):
    file = copied / "checkpoints" / "5" / "meta" / "metadata"
    file.write_text(file.read_text().replace("small", "SMALL"))
    with pytest.raises(checkpoint.Damaged, match="its metadata do not match their digest"):
        restore(copied, "meta")


def test_a_disk_that_is_full_is_said_in_a_sentence(copied, monkeypatch):
    checkpoints = checkpoint.Checkpoints(copied)

    def full(*args, **keys):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(orbax_files, "write", full)
    with pytest.raises(UserError, match="step 6 cannot be written.*No space left.*older ones are"):
        checkpoints.save(6, {}, {}, {})
    assert restore(copied, "train")


def test_a_disk_that_refuses_an_array_is_said_in_a_sentence(copied, capfd):
    """Arrays are written by tensorstore, whose errors are not those of Python."""
    big = {"a": np.random.default_rng(0).normal(size=100_000)}
    checkpoints, limits = checkpoint.Checkpoints(copied), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"step 6 cannot.*\(File too large\); older") as refused:
            checkpoints.save(6, big, big, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(refused.value.__cause__.__cause__, ValueError)
    assert "Traceback" not in capfd.readouterr().err
    assert restore(copied, "train")
    save(copied, 6)
    assert checkpoint.Checkpoints(copied).steps() == [5, 6]


@pytest.mark.parametrize("step", [4, 5])
def test_a_step_before_the_newest_is_not_passed_over_in_silence(copied, step):
    with pytest.raises(UserError, match=f"of step 5, so none of step {step} is written; go_back"):
        save(copied, step)


def test_a_training_that_goes_back_saves_again_and_what_came_later_is_set_aside(three, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(three, folder)
    checkpoint.Checkpoints(folder, read_only=True).go_back(5)
    assert checkpoint.Checkpoints(folder).steps() == [5, 10, 15]
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.go_back(5)
    checkpoints.save(7, model_of(make_state()), make_state(), {})
    assert checkpoints.steps() == [5, 7]
    assert sorted(f.name for f in (folder / "later").iterdir()) == ["10", "15"]


def test_what_a_failed_save_still_writes_to_is_removed_when_it_has_ended(copied, monkeypatch):
    unfinished = copied / "checkpoints" / "6.orbax-checkpoint-tmp"
    (unfinished / "train").mkdir(parents=True)
    remove, refusals = shutil.rmtree, [errno.ENOTEMPTY, errno.ENOENT]

    def busy(path, *args, **kwargs):
        if refusals and pathlib.Path(path) == unfinished:
            number = refusals.pop(0)
            raise OSError(number, os.strerror(number))
        remove(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", busy)
    assert checkpoint.Checkpoints(copied).steps() == [5]
    assert not unfinished.exists() and not refusals


def test_folders_that_are_no_checkpoints_are_left_alone(copied):
    for name in ("5-copy", "best"):
        (copied / "checkpoints" / name).mkdir()
    (copied / "checkpoints" / "5-copy" / "mine").write_text("")
    assert checkpoint.Checkpoints(copied).steps() == [5]
    assert {f.name for f in (copied / "checkpoints").iterdir()} == {"5", "5-copy", "best"}


# --- a save that is killed ---

KILLED = """
import os, pathlib, signal, sys, threading, time
import numpy as np
from mtm_jax.io import checkpoint, step_folders
folder, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
train = {str(k): np.full(200, k, np.float32) for k in range(30)}
checkpoints = checkpoint.Checkpoints(folder)
checkpoints.save(1, train, train, {})
checkpoints.save(2, train, train, {})

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "before the name":
    rename = os.rename
    def hooked(*args, **keys):
        kill()
    os.rename = os.replace = pathlib.Path.rename = pathlib.Path.replace = hooked
elif moment == "while writing":
    def watch():
        while not any((folder / "checkpoints").glob("3.*")):
            time.sleep(0.0005)
        kill()
    threading.Thread(target=watch, daemon=True).start()
else:
    step_folders.shutil.rmtree = lambda path: kill()
checkpoints.save(3, train, train, {})
"""


@pytest.mark.parametrize("moment", ["while writing", "before the name", "while removing"])
def test_a_killed_save_leaves_the_older_ones_and_is_cleaned_away(root, tmp_path, moment):
    command = [sys.executable, "-c", KILLED, str(tmp_path), moment]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert found.returncode == -signal.SIGKILL, found.stderr
    left = {f.name for f in (tmp_path / "checkpoints").iterdir()}
    steps = [2, 3] if moment == "while removing" else [1, 2]
    assert left - {str(step) for step in steps}  # something unfinished lies there
    assert checkpoint.Checkpoints(tmp_path, read_only=True).steps() == steps
    checkpoints = checkpoint.Checkpoints(tmp_path)
    assert {f.name for f in (tmp_path / "checkpoints").iterdir()} == {str(s) for s in steps}
    like = {str(k): np.zeros(200, np.float32) for k in range(30)}
    step, train = checkpoints.newest(lambda s: (s, checkpoints.restore_train(s, like)))
    assert step == steps[-1]
    assert all((value == float(name)).all() for name, value in train.items())


# --- checkpoints of the past ---


@pytest.fixture
def first_format(root, tmp_path):
    """A run with a critic that format version 1 wrote; the file is never to be made again."""
    with zipfile.ZipFile(root / "tests" / "fixtures" / "run_v1.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_a_run_of_the_first_format_loads(first_format):
    found = pretrained.load(first_format)
    assert (found.step, found.history, found.model.config.window) == (2, 2, 4)
    assert (found.info.name, found.returns.best is not None) == ("custom-toy", True)
    assert found.require_critic().config.hidden == (4,)
    outputs = iql.v_values(found.critic.params, found.critic.stats, np.zeros((3, 4), np.float32))
    assert np.isfinite(outputs).all()


def test_a_training_state_of_the_first_format_continues(first_format):
    config = critic_files.load(first_format).config
    like = iql.init_state(jax.random.key(1), config, 4, 2)
    found = checkpoint.Checkpoints(first_format / "critic").restore_train(2, like)
    assert int(found.step) == 2
    assert jax.tree.structure(found) == jax.tree.structure(like)
