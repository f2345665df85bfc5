"""A training continues under other settings of jax, on another machine, and nothing is blamed."""

import errno
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, manifest, numerics, orbax_files, trees

X64 = (False, True)


def make_state(fill=0.0, impl=None):
    """Arrays whose type depends on jax_enable_x64, and some whose type does not."""
    return {
        "params": jnp.full(3, fill, float) / 3,
        "half": jnp.full(2, fill, jnp.bfloat16),
        "step": jnp.asarray(int(fill)),
        "on": jnp.asarray(bool(fill)),
        "host": np.full(2, fill) / 3,
        "key": jax.random.key(7 + int(fill), impl=impl),
    }


def save(folder, **keys):
    state = make_state(1.0, **keys)
    checkpoint.Checkpoints(folder).save(1, {"params": state["params"]}, state, {})
    return trees.to_host(state)


@pytest.mark.parametrize("after", X64)
@pytest.mark.parametrize("before", X64)
def test_a_training_continues_with_another_x64(tmp_path, before, after):
    with jax.enable_x64(before):
        saved = save(tmp_path)
    with jax.enable_x64(after):
        like = make_state()
        found = checkpoint.Checkpoints(tmp_path).restore_train(1, like)
        for name, leaf in found.items():
            assert leaf.dtype == like[name].dtype
        np.testing.assert_array_equal(found["params"], saved["params"].astype(like["params"].dtype))
        assert (int(found["step"]), bool(found["on"])) == (1, True)
        assert found["host"].tobytes() == saved["host"].tobytes()
        differ = numerics.differences(checkpoint.Checkpoints(tmp_path).restore_meta(1)["numerics"])
    expected = [] if before is after else [f"jax_enable_x64 is {before} there and {after} here"]
    assert differ == expected


@pytest.mark.parametrize("here", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("there", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_random_keys_keep_their_implementation(tmp_path, there, here):
    saved = save(tmp_path, impl=there)
    found = checkpoint.Checkpoints(tmp_path).restore_train(1, make_state(impl=here))["key"]
    assert str(jax.random.key_impl(found)) == there
    np.testing.assert_array_equal(jax.random.key_data(found), saved["key"])


def test_older_checkpoints_tell_the_implementation_by_the_number_of_words():
    keys = {impl: jax.random.key(0, impl=impl) for impl in ("threefry2x32", "rbg", "unsafe_rbg")}
    for (there, key), like, expected in (
        (("threefry2x32", keys["threefry2x32"]), keys["rbg"], "threefry2x32"),
        (("unsafe_rbg", keys["unsafe_rbg"]), keys["unsafe_rbg"], "unsafe_rbg"),
        (("rbg", keys["rbg"]), keys["threefry2x32"], "rbg"),
    ):
        words = {"key": np.asarray(jax.random.key_data(key))}
        found = trees.fill({"key": like}, words, {})["key"]
        assert str(jax.random.key_impl(found)) == expected, there


def test_whole_numbers_do_not_become_real_ones(tmp_path):
    save(tmp_path)
    like = make_state() | {"step": jnp.float32(0)}
    said = r"types of 1 arrays differ: /step is \(\) of int32 there and \(\) of float32 here"
    with pytest.raises(UserError, match=said) as refused:
        checkpoint.Checkpoints(tmp_path).restore_train(1, like)
    assert not isinstance(refused.value, manifest.Damaged)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (ValueError("long story [source locations] os_error_code='5'"), "Input/output error"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GB"), "not enough memory"),
        (ImportError("no module named zstd"), "no module named zstd"),
    ],
)
def test_what_the_machine_cannot_read_is_no_damage(tmp_path, monkeypatch, error, reason):
    save(tmp_path)

    def refuse(*_):
        raise error

    orbax = types.SimpleNamespace(restore=refuse)
    monkeypatch.setattr(orbax_files, "_checkpointer", lambda: orbax)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    with pytest.raises(UserError, match=f"cannot read checkpoint .*{reason}.*may well be") as said:
        checkpoints.newest(checkpoints.restore_model, use_older=True)
    assert not isinstance(said.value, manifest.Damaged) and "delete" not in str(said.value)
    assert checkpoints.steps() == [1]  # nothing was set aside
