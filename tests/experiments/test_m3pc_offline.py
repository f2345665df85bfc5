"""One command evaluates a checkpoint by every method and says what is missing."""

import dataclasses
import shutil

import pytest

from experiments import m3pc_offline
from experiments.runtime import cli, plans
from mtm_jax.agents import planner, pretrained
from mtm_jax.config import CriticConfig, PromptConfig
from mtm_jax.errors import UserError
from mtm_jax.io import records
from mtm_jax.training import iql


def settings(run, **overrides):
    given = {"run": run, "eval.episodes": 2, "plan.candidates": 4, "imagined_steps": 0}
    given |= {k.replace("__", "."): v for k, v in overrides.items()}
    return cli.parse([f"--config.{k}={v}" for k, v in given.items()], "configs/m3pc_offline.py")


def test_every_method_gets_a_row_with_its_plan(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    before = len(records.read_jsonl(run / "results.jsonl"))
    options = {"m3pc_m__xi": 2.0, "prompt__guidance": 2.0}
    m3pc_offline.main(settings(run, eval__methods="('rcbc','m3pc_0','m3pc_m')", **options))
    rows = records.read_jsonl(run / "results.jsonl")[before:]
    assert [row["method"] for row in rows] == ["rcbc", "m3pc_0", "m3pc_m"]
    assert {row["settings"]["entropy"] for row in rows} == {"joint"}
    plan = rows[2]["settings"]["plan"]
    assert (plan["candidates"], plan["xi"], plan["guidance"]) == (4, 2.0, "returns")
    assert "plan" not in rows[0]["settings"] and "prompt" not in rows[1]["settings"]
    assert rows[0]["settings"]["prompt"]["guidance"] == 2.0
    assert [row["settings"]["action"] for row in rows] == ["mode", "expectation", "expectation"]
    assert rows[1]["settings"]["plan"]["guidance"] == "none"
    assert rows[1]["target_return"] == rows[0]["target_return"]
    assert len(rows[1]["returns"]) == 2
    assert (run / "figures" / "methods.png").exists()


def test_rows_of_critic_guided_plans_say_which_critic_guided(tiny_run):
    agent = pretrained.load(tiny_run)
    critic = iql.Critic(CriticConfig(discount=0.9), {}, agent.stats["states"], 7)
    agent = dataclasses.replace(agent, critic=critic)
    guided = plans.describe(planner.plan_config("m3pc_q"), "", agent)
    assert (guided["critic"]["discount"], guided["critic"]["step"]) == (0.9, 7)
    assert guided["plan"]["discount"] == 0.9
    assert "critic" not in plans.describe(planner.plan_config("m3pc_m"), "", agent)


def test_what_concerns_returns_is_no_part_of_cloning():
    given = {"guidance": 2.0, "returns_shown": "present", "action": "mean"}
    rcbc, bc = (plans.prompt_of_method(method, given) for method in ("rcbc", "bc"))
    assert (rcbc.guidance, rcbc.returns_shown, rcbc.action) == (2.0, "present", "mean")
    assert bc == PromptConfig(action="mean")
    assert plans.prompt_of_method("m3pc_m", given) is None


def test_the_control_draws_candidates_like_predicted_returns():
    def spread(**overrides):
        return plans.of_method("m3pc_0", settings("unused", **overrides)).spread

    assert spread() == 0.5
    assert spread(m3pc_m__spread=0.8) == 0.8
    assert spread(m3pc_m__spread=0.8, m3pc_0__spread=1.0) == 1.0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"eval__methods": "('m3pc',)"}, "choose among bc, rcbc, m3pc_0, m3pc_m, m3pc_v, m3pc_q"),
        ({"prompt__action": "max"}, "prompt action is 'max'; choose mode or mean or sample"),
        ({"plan__candidates": 0}, "candidates is 0; it must be at least 1"),
        ({"plan__horizon": 6}, "history of 4 and a horizon of 6 steps need a window of 10"),
        ({}, "no critic; train one with python -m experiments.critic --config.run="),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_runs(
    tiny_run, tmp_path, overrides, sentence
):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    before = (run / "results.jsonl").read_bytes()
    with pytest.raises(UserError, match=sentence):
        m3pc_offline.main(settings(run, **overrides))
    assert (run / "results.jsonl").read_bytes() == before
