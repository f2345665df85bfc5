"""A critic is trained for a run from the command line, continued, loaded with the run."""

import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from configs import critic as page
from experiments import critic
from experiments.runtime import cli, plans, runs
from experiments.training import build, named_run
from mtm_jax.agents import acting, critic_files, planner, pretrained
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, metrics, records
from mtm_jax.training import iql

TINY = {
    "critic.unit": 1.0,
    "critic.steps": 30,
    "critic.hidden": (8,),
    "critic.batch_size": 16,
    "log_every": 10,
    "save_every": 10,
}


def settings(run, **overrides):
    """A configuration of seconds; an underscore in a key of `overrides` stands for a dot."""
    given = TINY | {"run": run} | {k.replace("__", "."): v for k, v in overrides.items()}
    return cli.parse([f"--config.{k}={v}" for k, v in given.items()], "configs/critic.py")


def listing(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def digests(folder):
    """All that the newest checkpoint says, but for which run it is of."""
    checkpoints = checkpoint.Checkpoints(folder / "critic", read_only=True)
    meta = dict(checkpoints.restore_meta(checkpoints.steps()[-1]))
    del meta["run_id"]
    assert {"model", "train"} < set(meta["digests"])
    return meta | {"digests": {k: v for k, v in meta["digests"].items() if k != "meta"}}


@pytest.fixture
def started(tiny_config, tmp_path):
    """A pretraining run that has not saved anything yet."""
    runs.open_run(tmp_path / "run", runs.to_json(tiny_config(tmp_path / "run")))
    return tmp_path / "run"


@pytest.fixture(scope="module")
def pretrained_run(drawn_run):
    """A run with a checkpoint, of parameters as they are drawn."""
    return drawn_run


@pytest.fixture(scope="module")
def with_critic(pretrained_run, tmp_path_factory):
    """The same run with a finished critic."""
    folder = tmp_path_factory.mktemp("with_critic") / "run"
    shutil.copytree(pretrained_run, folder)
    critic.main(settings(folder))
    return folder


@pytest.fixture
def copied(with_critic, tmp_path):
    shutil.copytree(with_critic, tmp_path / "run")
    return tmp_path / "run"


def test_a_critic_is_saved_beside_what_the_run_holds(with_critic, pretrained_run):
    files = listing(with_critic)
    assert {k: v for k, v in files.items() if k.parts[0] != "critic"} == listing(pretrained_run)
    rows = records.read_jsonl(with_critic / "critic" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [10, 20, 30]
    names = ("q_loss", "v_loss", "q_mean", "v_mean", "advantage_std")
    assert set(rows[0]) == {"step", *(f"critic/{name}" for name in names)}
    assert rows[-1]["critic/q_loss"] < rows[0]["critic/q_loss"]


def test_an_agent_brings_the_critic_of_its_run(with_critic, pretrained_run):
    agent = pretrained.load(with_critic)
    found = agent.require_critic()
    assert (found.step, found.config.hidden, found.config.total_steps) == (30, (8,), 30)
    for name, value in (("mean", found.stats.mean), ("std", found.stats.std)):
        np.testing.assert_array_equal(value, getattr(agent.stats["states"], name))
    obs, actions = np.zeros((5, 11), np.float32), np.zeros((5, 3), np.float32)
    assert iql.q_values(found.params, found.stats, obs, actions).shape == (2, 5)
    assert iql.v_values(found.params, found.stats, obs).shape == (5,)
    agent = pretrained.load(pretrained_run)
    assert agent.critic is None
    with pytest.raises(UserError, match=f"has no critic; train one.*--config.run={pretrained_run}"):
        agent.require_critic()


def test_a_critic_with_every_option_guides_plans_that_expect_falls(pretrained_run, tmp_path):
    run = shutil.copytree(pretrained_run, tmp_path / "run")
    options = {"members": 3, "least_of": 2, "layer_norm": True, "terminals": True}
    critic.main(settings(run, **{f"critic__{key}": value for key, value in options.items()}))
    rows = records.read_jsonl(run / "critic" / "metrics.jsonl")
    assert 0 < rows[-1]["critic/end_loss"] < rows[0]["critic/end_loss"]
    agent, obs = pretrained.load(run), np.zeros((2, 11), np.float32)
    assert iql.q_values(agent.critic.params, agent.critic.stats, obs, obs[:, :3]).shape == (3, 2)
    falls = {"candidates": 4, "falls": "expected", "fall_penalty": 10.0}
    for method, further in {"m3pc_v": {}, "m3pc_q": {"pessimism": 1.0}}.items():
        plan = planner.plan_config(method, **falls, **further)
        actor = acting.make_actor(agent, method, plan=plan)
        assert np.isfinite(actor.decide(actor.start(obs))).all()
        assert plans.describe(plan, "", agent)["critic"]["terminals"]


def test_the_same_command_says_that_a_critic_is_finished_and_changes_nothing(copied, capsys):
    before = listing(copied)
    critic.main(settings(copied))
    assert listing(copied) == before
    assert "is finished: 30 updates" in capsys.readouterr().out


def test_more_steps_continue_a_finished_critic(copied):
    critic.main(settings(copied, critic__steps=40))
    assert pretrained.load(copied).require_critic().step == 40
    rows = records.read_jsonl(copied / "critic" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [10, 20, 30, 40]


def test_other_settings_do_not_touch_a_critic(copied):
    before = listing(copied)
    with pytest.raises(UserError, match=r"expectile is 0.7 there and 0.9 here; delete that folder"):
        critic.main(settings(copied, critic__expectile=0.9))
    with pytest.raises(UserError, match="policy is False there and True here"):
        critic.main(settings(copied, critic__policy=True))
    assert listing(copied) == before


def test_a_damaged_critic_is_named(copied):
    shutil.rmtree(copied / "critic" / "checkpoints" / "30" / "model")
    with pytest.raises(UserError, match=r"critic/checkpoints/30 cannot be read"):
        pretrained.load(copied)


def test_an_interrupted_critic_ends_bit_for_bit_like_an_undisturbed_one(
    with_critic, started, monkeypatch
):
    """It also belongs to a run that has saved nothing yet."""
    write = metrics.MetricsWriter.write

    def hooked(self, step, row):
        write(self, step, row)
        if step == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    config = settings(started, save_every=1000)  # only the signal saves
    with monkeypatch.context() as patch:
        patch.setattr(metrics.MetricsWriter, "write", hooked)
        with pytest.raises(SystemExit) as stopped:
            critic.main(config)
    assert stopped.value.code == 143
    assert critic_files.load(started).step == 10
    critic.main(config)
    assert digests(started) == digests(with_critic)
    rows = [records.read_jsonl(f / "critic" / "metrics.jsonl") for f in (started, with_critic)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"log_every": 0}, "log_every is 0 updates"),
        ({"save_every": -1}, "save_every is -1 updates"),
        ({"critic__steps": -5}, "critic.steps is -5"),
        ({"critic__expectile": 1.0}, "expectile is 1.0; it must be"),
        ({"critic__members": 0}, "members is 0"),
    ],
)
def test_wrong_settings_leave_the_run_as_it_is(started, overrides, says):
    before = listing(started)
    with pytest.raises(UserError, match=says):
        critic.main(settings(started, **overrides))
    assert listing(started) == before


@pytest.fixture
def pair(pretrained_run, tmp_path):
    """Two runs of different seeds."""
    for seed in range(2):
        folder = tmp_path / f"seed{seed}"
        shutil.copytree(pretrained_run, folder)
        config = json.loads((folder / "config.json").read_text()) | {"seed": seed}
        (folder / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_critics_of_several_runs_end_as_each_does_alone(pair, with_critic):
    critic.main(settings(pair, seeds=2))
    ours, other, alone = (
        pretrained.load(folder).critic for folder in (pair / "seed0", pair / "seed1", with_critic)
    )
    obs, action = np.ones((4, 11), np.float32), np.zeros((4, 3), np.float32)
    values, others, expected = (
        np.asarray(iql.q_values(c.params, c.stats, obs, action)) for c in (ours, other, alone)
    )
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert ours.step == other.step == 30 and not np.allclose(others, expected, rtol=1e-2)


def test_critics_of_other_data_do_not_share_a_program(pair):
    config = json.loads((pair / "seed1" / "config.json").read_text())
    config["data"]["split_seed"] = 5
    (pair / "seed1" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="split_seed is 0 there and 5 here; train its critic by it"):
        critic.main(settings(pair, seeds=2))
    assert not (pair / "seed0" / "critic").exists()


def test_data_without_rewards_are_refused(tiny_config, tmp_path):
    source, folder = tmp_path / "mine.npz", tmp_path / "run"
    arrays = {"observations": np.zeros((60, 11)), "actions": np.zeros((60, 3))}
    np.savez(source, **arrays, lengths=[20, 25, 15])
    runs.open_run(folder, runs.to_json(tiny_config(folder, f"source={source}")))
    with pytest.raises(UserError, match="hopper-medium has no rewards, so"):
        critic.main(settings(folder))
    assert not (folder / "critic").exists()


def parse(*argv):
    return cli.parse(argv, "configs/critic.py")


def test_a_run_is_found_by_its_folder_or_by_what_made_it(started, tmp_path, monkeypatch):
    assert named_run.find(settings(started), "critic") == started
    named = "--config=configs/critic.py:hopper-medium,preset=small"
    assert named_run.find(parse(named, f"--config.run={started}"), "critic") == started
    with pytest.raises(UserError, match="holds a run of hopper-medium, not of data set walker2d"):
        other = "--config=configs/critic.py:walker2d-medium,preset=small"
        named_run.find(parse(other, f"--config.run={started}"), "critic")
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "runs" / "pretrain" / "hopper-medium-d4rl-m3pc-small-seed3"
    shutil.copytree(started, made)
    asked = parse(named, "--config.source=d4rl", "--config.seed=3")
    assert named_run.find(asked, "critic").absolute() == made


def test_a_run_that_is_missing_is_named_with_what_would_make_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no run was named; give --config.run=FOLDER"):
        critic.main(parse())
    with pytest.raises(UserError, match="no pretraining run in nowhere; give a run folder"):
        critic.main(parse("--config.run=nowhere"))
    named = "--config=configs/critic.py:hopper-medium,preset=small"
    with pytest.raises(UserError) as error:
        critic.main(parse(named, "--config.seed=2"))
    assert str(error.value) == (
        "there is no pretraining run in runs/pretrain/hopper-medium-m3pc-small-seed2; make it "
        "with: python -m experiments.pretrain "
        "--config=configs/pretrain.py:hopper-medium,preset=small --config.seed=2"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_unit_is_what_rewards_add_up_to_over_the_steps_in_sight(tiny_config, tmp_path):
    data = build.load_data(tiny_config(tmp_path / "run"))
    rewards = np.asarray(data.train.values["rewards"])
    size = np.sqrt(np.mean(rewards**2))
    limit = data.info.max_episode_steps
    for discount, steps in ((0.9, 10), (0.997, min(limit, 1 / (1 - 0.997))), (1.0, limit)):
        assert critic.typical_value(data, discount) == float(f"{steps * size:.3g}")
    chosen = critic.make_settings(parse().critic, "small", data)
    assert chosen.unit == critic.typical_value(data, chosen.discount)


def test_the_preset_of_the_run_decides_how_long_a_critic_trains():
    steps = [
        critic.make_settings(parse("--config.critic.unit=1").critic, p, None).total_steps
        for p in page.PRESETS
    ]
    assert steps == [30_000, 200_000, 1_000_000]
    seven = parse("--config.critic.unit=1", "--config.critic.steps=7").critic
    assert critic.make_settings(seven, "small", None).total_steps == 7


def test_the_key_of_the_run_starts_the_critic(tiny_config, with_critic, tmp_path):
    folder = tmp_path / "run"
    config = runs.to_json(tiny_config(folder)) | {"seed": 1}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    critic.main(settings(folder, critic__steps=10))
    (one, *_), (other, *_) = (
        jax.tree.leaves(critic_files.load(f).params) for f in (folder, with_critic)
    )
    assert (np.asarray(one) != np.asarray(other)).any()
