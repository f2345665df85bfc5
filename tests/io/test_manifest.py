"""What a checkpoint says of itself."""

from __future__ import annotations

import copy
import json
import pathlib

import numpy as np
import pytest

from mtm_jax.errors import UserError
from mtm_jax.io import manifest

PATH = pathlib.Path("run/checkpoints/7")


@pytest.fixture
def arrays():
    return {"layer": {"kernel": np.arange(6, dtype=np.float32), "bias": np.zeros(2, np.int32)}}


@pytest.fixture
def written(arrays):
    """A manifest as it comes back from a file."""
    made = manifest.make({"env_id": "Hopper-v4"}, 7, arrays, {"step": np.int64(7)}, score=0.5)
    return json.loads(json.dumps(made))


def test_what_was_made_passes(written, arrays):
    assert manifest.check(PATH, written, None) == written
    assert (written["step"], written["score"], written["env_id"]) == (7, 0.5, "Hopper-v4")
    manifest.verify(PATH, written, "model", arrays)
    manifest.verify(PATH, written, "train", {"step": np.int64(7)})


@pytest.mark.parametrize("key", ["env_id", "step", "score"])
def test_any_change_of_a_manifest_is_found(written, key):
    with pytest.raises(manifest.Damaged, match="checkpoints/7 is damaged: its metadata"):
        manifest.check(PATH, written | {key: 8}, None)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda layer: layer["kernel"].__setitem__(3, 9), "kernel"),
        (lambda layer: layer.update(kernel=layer["kernel"].reshape(2, 3)), "kernel"),
        (lambda layer: layer.update(bias=layer["bias"].view(np.float32)), "bias"),  # equal bytes
        (lambda layer: layer.pop("bias"), "bias"),
        (lambda layer: layer.update(more=np.zeros(1)), "more"),
    ],
    ids=["value", "shape", "type", "missing", "added"],
)
def test_an_array_that_is_not_as_saved_is_named(written, arrays, change, name):
    changed = copy.deepcopy(arrays)
    change(changed["layer"])
    with pytest.raises(manifest.Damaged, match=f"checkpoints/7 .*array model/layer/{name} does"):
        manifest.verify(PATH, written, "model", changed)


def test_another_model_is_refused_with_both_shapes(arrays):
    manifest.refuse_other_model(PATH, arrays, arrays)
    wanted = {"layer": {"kernel": np.zeros(8), "bias": np.zeros(2, np.int32)}}
    said = r"shapes of 1 arrays differ: /layer/kernel is \(6,\) there and \(8,\) here; use the"
    with pytest.raises(UserError, match=said) as refused:
        manifest.refuse_other_model(PATH, arrays, wanted)
    assert not isinstance(refused.value, manifest.Damaged)


def test_of_many_arrays_that_differ_a_few_are_shown():
    saved = {f"w{n}": np.zeros(1) for n in range(9)}
    with pytest.raises(UserError, match="of 9 arrays differ: .*w4 .* and 4 more"):
        manifest.refuse_other_model(PATH, saved, {f"w{n}": np.zeros(2) for n in range(9)})
