"""A training goes on with the model, data and normalisation it began with, or not at all."""

import dataclasses
import json
import shutil
import zipfile

import jax
import numpy as np
import pytest

from experiments.runtime import resume
from mtm_jax.agents import pretrained
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint
from mtm_jax.models import trajectory_model as model


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """A finished run with a critic."""
    folder = tmp_path_factory.mktemp("run")
    with zipfile.ZipFile(root / "tests" / "fixtures" / "run_v1.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def agent(run):
    return pretrained.load(run)


def check(run, agent):
    resume.check_agent(checkpoint.Checkpoints(run, read_only=True), 2, agent)


def refusal(run, agent):
    with pytest.raises(UserError, match="checkpoints/2 is of another model or of other data") as no:
        check(run, agent)
    return str(no.value)


def with_model(agent, **changes):
    config = dataclasses.replace(agent.model.config, **changes)
    return dataclasses.replace(agent, model=model.make_model(config))


def test_the_same_passes_on_any_machine(run, agent):
    check(run, agent)
    check(run, with_model(agent, compute_dtype="bfloat16"))
    check(run, with_model(agent, remat=True))
    returns = pretrained.ReturnSummary(agent.returns.best * (1 + 1e-9), agent.returns.mean)
    rounded = jax.tree.map(lambda x: x * (1 + 1e-6), agent.stats)
    check(run, dataclasses.replace(agent, returns=returns, stats=rounded))


def test_another_width_or_modality_set_is_refused_with_both_values(run, agent):
    assert "; model.width is 8 there and 16 here;" in refusal(
        run, with_model(agent, width=16)
    ).replace(": model", "; model")
    fewer = tuple(m for m in agent.model.config.modalities if m.name != "rewards")
    said = refusal(run, with_model(agent, modalities=fewer, window=3))
    assert "model.modalities.rewards.features is 1 there and None here" in said
    assert "model.window is 4 there and 3 here" in said


def test_other_data_are_refused_with_both_values(run, agent):
    info = dataclasses.replace(agent.info, name="other-toy", action_high=(2.0, 2.0))
    returns = pretrained.ReturnSummary(1.0, agent.returns.mean)
    said = refusal(run, dataclasses.replace(agent, info=info, returns=returns, history=1))
    for part in (
        *("data.name is 'custom-toy' there and 'other-toy' here", "history is 2 there and 1 here"),
        *("data.action_high is [1.0, 1.0] there and [2.0, 2.0] here", "and 1.0 here"),
    ):
        assert part in said


def test_another_normalisation_is_refused_with_its_worst_dimension(run, agent):
    stats = dict(agent.stats)
    mean = np.array(stats["states"].mean)
    mean[2] += 0.5
    stats["states"] = stats["states"].replace(mean=mean)
    said = refusal(run, dataclasses.replace(agent, stats=stats))
    expected = f"{mean[2] - 0.5:.6g} there and {mean[2]:.6g} here in dimension 2"
    assert f"stats.states.mean is {expected}" in said
    assert "stats.states.std" not in said
    wider = dataclasses.replace(stats["states"], mean=np.zeros(5))
    (found, *_) = resume.stats_differences("stats.states", agent.stats["states"], wider)
    assert found == "stats.states.mean has 4 values there and 5 here"


def test_a_critic_of_another_run_is_not_loaded(run, agent, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    checkpoints = checkpoint.Checkpoints(tmp_path / "run" / "critic")
    saved, meta = checkpoints.restore_model(2), checkpoints.restore_meta(2)
    saved["stats"]["std"] = saved["stats"]["std"] * 2
    shutil.rmtree(tmp_path / "run" / "critic" / "checkpoints")
    meta = json.loads(json.dumps(meta))
    checkpoint.Checkpoints(tmp_path / "run" / "critic").save(2, saved, {"step": 2}, meta)
    with pytest.raises(UserError, match=r"run/critic is of other data: stats\.states\.std is \["):
        pretrained.load(tmp_path / "run")
