"""Checkpoints come back bit for bit, and what is damaged or foreign is named."""

import gc
import logging
import pathlib
import shutil
import sys
import time
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtm_jax import agent, checkpoint, tokens
from mtm_jax.errors import UserError


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
    monkeypatch.setattr(checkpoints._manager, "restore", restore_of_orbax)
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
    honest = checkpoint.digests
    monkeypatch.setattr(checkpoint, "digests", lambda tree: honest(tree) | {"/more": "0" * 64})
    save(tmp_path)
    monkeypatch.setattr(checkpoint, "digests", honest)
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
        agent.load(tmp_path)
    assert opened == [{"read_only": True}]


def test_a_changed_array_is_named(tmp_path, monkeypatch):
    """The digests catch what the file format does not."""
    state = make_state()
    honest = checkpoint.digests

    def digests_of_other_data(tree):
        found = honest(tree)
        return found | {k: "0" * 64 for k in found if k.endswith("kernel")}

    monkeypatch.setattr(checkpoint, "digests", digests_of_other_data)
    save(tmp_path, state=state)
    monkeypatch.setattr(checkpoint, "digests", honest)
    with pytest.raises(
        UserError, match="damaged: array model/params/layer_0/kernel does not match"
    ):
        checkpoint.Checkpoints(tmp_path).restore_model(5)


def test_a_checkpoint_of_another_width_names_the_first_array_with_both_shapes(saved):
    with pytest.raises(UserError) as refused:
        checkpoint.Checkpoints(saved).restore_train(5, make_state(width=4))
    message = str(refused.value)
    assert "belongs to another model" in message
    assert "(3,) in the checkpoint and (4,) here" in message
    assert "bias" in message


def test_a_checkpoint_of_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 99)
    save(tmp_path)
    monkeypatch.undo()
    for item in ("model", "train", "meta"):
        with pytest.raises(UserError, match=r"has format version 99, this program reads 1"):
            restore(tmp_path, item)
