"""A checkpoint with averaged parameters acts by the average, or as it is told."""

import json
import shutil

import jax
import numpy as np
import pytest

from mtm_jax.agents import pretrained
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint


@pytest.fixture
def averaged_run(drawn_run, tmp_path):
    """A run whose averaged parameters are half of the latest."""
    run = shutil.copytree(drawn_run, tmp_path / "run")
    checkpoints = checkpoint.Checkpoints(run)
    (step,) = checkpoints.steps()
    saved, meta = checkpoints.restore_model(step), checkpoints.restore_meta(step)
    saved["average"] = jax.tree.map(lambda x: x / 2, saved["params"])
    checkpoints.save(step + 1, saved, {"step": step + 1}, json.loads(json.dumps(meta)))
    return run


def test_the_average_acts_unless_the_latest_weights_are_asked_for(averaged_run):
    found = {w: pretrained.load(averaged_run, weights=w) for w in pretrained.WEIGHTS}
    assert {w: agent.weights for w, agent in found.items()} == {
        "auto": "average",
        "latest": "latest",
        "average": "average",
    }
    same = np.testing.assert_array_equal
    jax.tree.map(same, found["auto"].params, found["average"].params)
    half = jax.tree.map(lambda x: x / 2, found["latest"].params)
    jax.tree.map(same, found["auto"].params, half)


def test_a_run_without_an_average_says_so(drawn_run):
    for weights in ("auto", "latest"):
        assert pretrained.load(drawn_run, weights=weights).weights == ""
    with pytest.raises(UserError, match="trained without an average .* weights='latest'"):
        pretrained.load(drawn_run, weights="average")


def test_other_weights_are_refused(drawn_run):
    with pytest.raises(UserError, match="weights are 'best'; choose auto, latest, average"):
        pretrained.load(drawn_run, weights="best")
