"""The instruments that say what a planner has to choose by are right where the truth is known."""

import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.plan_signal import __main__ as plan_signal
from experiments.plan_signal import ranking as ranking_lib
from experiments.plan_signal import simulators as simulators_lib
from experiments.runtime import cli
from mtm_jax import tokens
from mtm_jax.agents import acting, planner, pretrained
from mtm_jax.errors import UserError
from mtm_jax.io import records
from mtm_jax.planning import forward, worlds

N, HORIZON, AFTER, FIRST = 5, 3, 4, 4


@pytest.fixture(scope="module")
def agent(tiny_run):
    return pretrained.load(tiny_run)


@pytest.fixture(scope="module")
def simulators(agent):
    return simulators_lib.Simulators(agent, N, seed=1)


@pytest.fixture(scope="module")
def moments(agent):
    return simulators_lib.reach(agent, 3, FIRST, 8, seed=0)


def make_plan(candidates, states, rewards, utilities):
    n, h = candidates.shape[:2]
    rollout = worlds.Rollout(states, rewards, np.zeros((n, h)))
    weights = np.full(n, 1.0 / n)
    return forward.Plan(
        candidates[0, 0], candidates, rollout, np.zeros((n, h)), utilities, weights, np.int32(h)
    )


class Oracle:
    """Plans random actions, and knows what they lead to: all of it, or the means only."""

    def __init__(self, agent, simulators, moments, knows, seed=2):
        self.seed, self.agent, self._knows, self._simulators = seed, agent, knows, simulators
        self._moments = {id(moment.memory.contexts): moment for moment in moments}

    def explain(self, memory):
        key = jax.random.fold_in(jax.random.key(self.seed), memory.decisions)
        candidates = np.asarray(jax.random.uniform(key, (N, HORIZON, 3), minval=-1.0))
        moment = self._moments[id(memory.contexts)]
        real = simulators_lib.execute(self._simulators, moment, candidates, AFTER)
        if self._knows == "means":
            real = simulators_lib.Real(*(0.0 * x + x.mean(0) for x in real))
        plan = make_plan(candidates, *real)
        return jax.tree.map(lambda x: np.asarray(x)[None], plan)


def rank(agent, simulators, moments, knows):
    oracle = Oracle(agent, simulators, moments, knows)
    return ranking_lib.ranking(oracle, simulators, moments, AFTER)


def test_a_perfect_world_explains_all_and_real_returns_rank_perfectly(agent, simulators, moments):
    """Executing twice from one moment gives the same to the last bit."""
    found = rank(agent, simulators, moments, "all")
    assert found["rank_correlation"] == pytest.approx(1.0)
    explained = [found[f"states_explained_{n}"] for n in (1, 2)]
    assert [*explained, found["rewards_explained"]] == [1.0, 1.0, 1.0]
    assert "states_explained_3" not in found
    assert found["top_gain"] == pytest.approx(found["best_gain"]) and found["best_gain"] > 0
    assert found["gain"] == pytest.approx(0.0, abs=1e-6)  # the weights are all the same
    assert (found["flat_utilities"], found["flat_returns"]) == (0, 0)


def test_a_world_of_means_explains_nothing_and_ranks_nothing(agent, simulators, moments):
    found = rank(agent, simulators, moments, "means")
    explained = [found[f"states_explained_{n}"] for n in (1, 2)]
    np.testing.assert_allclose([*explained, found["rewards_explained"]], 0.0, atol=1e-5)
    assert found["rank_correlation"] == 0.0
    assert (found["flat_utilities"], found["flat_returns"]) == (len(moments), 0)


def test_what_is_explained_is_the_share_of_the_differences():
    real = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 6.0]])
    explained = ranking_lib.explained
    assert explained(real + 7.0, real) == 1.0
    assert explained(2.0 * real, real) == pytest.approx(0.0)
    assert explained(0.5 * real, real) == pytest.approx(0.75)
    assert explained(-real, real) == pytest.approx(-3.0)
    assert explained(real, np.ones((3, 2))) == 0.0


def test_states_are_compared_in_the_units_of_the_model():
    rng = np.random.default_rng(0)
    states, rewards = rng.normal(size=(N, HORIZON, 2)), rng.normal(size=(N, HORIZON))
    plan = make_plan(np.zeros((N, HORIZON, 3)), 0.0 * states, rewards, rewards[:, 0])
    plan.rollout.states[..., 0] = states[..., 0]
    real = simulators_lib.Real(states, rewards, rewards.sum(1))
    stats = tokens.identity_stats(2).replace(std=jnp.array([1.0, 3.0]))
    found = ranking_lib.compare(plan, real, stats)
    one, other = states[:, 2].var(0) / np.array([1.0, 9.0])
    assert found["states_explained_2"] == pytest.approx(one / (one + other), rel=1e-5)


def test_utilities_that_differ_by_rounding_only_rank_nothing():
    utilities = 1000.0 + 1e-5 * np.arange(4.0)
    assert ranking_lib.rank_correlation(utilities, np.arange(4.0)) == 0.0
    assert ranking_lib.rank_correlation(np.arange(4.0) ** 3, -np.arange(4.0)) == -1.0


@pytest.mark.parametrize("slope", [1.0, -0.25])
def test_calibration_is_the_slope_within_moments(slope):
    """Moments of higher utilities have lower returns, which is none of a planner's business."""
    rng = np.random.default_rng(0)
    utilities = [rng.normal(size=8) + 100.0 * k for k in range(4)]
    pairs = [(u, slope * u - 500.0 * k) for k, u in enumerate(utilities)]
    found = ranking_lib.calibration(pairs)
    assert found["calibration_slope"] == pytest.approx(slope)
    assert found["calibration_slope_error"] == pytest.approx(0.0, abs=1e-9)
    assert found["calibration_intercept"] == pytest.approx(-750.0)
    flat = ranking_lib.calibration([(np.full(3, 7.0), np.array([1.0, 2.0, 6.0]))])
    assert (flat["calibration_slope"], flat["calibration_intercept"]) == (0.0, 3.0)


def test_the_error_of_the_slope_is_that_of_moments():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        slopes = rng.normal(1.0, 0.5, 30)  # each moment has its own
        utilities = rng.normal(size=(30, 6))
        found.append(
            ranking_lib.calibration([(u, s * u) for s, u in zip(slopes, utilities, strict=True)])
        )
    spread = np.std([f["calibration_slope"] for f in found])
    said = np.mean([f["calibration_slope_error"] for f in found])
    assert said == pytest.approx(spread, rel=0.2)


def test_seeds_that_follow_each_other_share_no_episode_and_no_candidates(
    agent, simulators, moments, monkeypatch
):
    started = [simulators_lib.Simulators(agent, 4, seed).observations() for seed in (0, 1)]
    assert len(np.unique(np.concatenate(started), axis=0)) == 8
    seen, plan = [], planner.plan_config("m3pc_m", candidates=N, horizon=HORIZON)

    def record(plan, *_):
        seen.append(plan.candidates)
        return {"flat_utilities": 0.0, "flat_returns": 0.0}

    monkeypatch.setattr(ranking_lib, "compare", record)
    for seed in (2, 3):
        actor = acting.make_actor(agent, "m3pc_m", plan=plan, seed=seed)
        ranking_lib.ranking(actor, simulators, moments[:1] * 2, 0)
    assert len(np.unique(np.stack(seen), axis=0)) == len(seen) == 4


def test_the_policy_that_goes_on_asks_for_the_fraction_of_the_plan(agent, monkeypatch, tiny_run):
    one, other = (simulators_lib.Simulators(agent, 1, 0, fraction) for fraction in (1.0, -4.0))
    assert np.abs(one.policy() - other.policy()).max() > 1e-3
    other.ask(1.0)
    np.testing.assert_array_equal(one.policy(), other.policy())
    asked, ask = [], simulators_lib.Simulators.ask
    monkeypatch.setattr(
        *(simulators_lib.Simulators, "ask"),
        lambda self, fraction: (asked.append(fraction), ask(self, fraction)),
    )
    for module, name in ((ranking_lib, "ranking"), (plan_signal, "show")):
        monkeypatch.setattr(module, name, lambda *_: {})
    monkeypatch.setattr(plan_signal.sensitivity, "sensitivity", lambda *_: {})
    monkeypatch.setattr(plan_signal.records, "append", lambda *_: None)
    plan_signal.main(settings(tiny_run, **{"plan.target_fraction": 0.5}))
    assert asked == [0.5] * 3  # on the way, in between, and for the way to plan


def test_a_plan_with_another_history_than_the_policy_is_refused(agent):
    sentence = "way m plans with a history of 3 steps, and the policy of this run acts with 4"
    with pytest.raises(UserError, match=sentence):
        plan_signal.ways(settings("run", **{"plan.history": 3}), agent)


def test_a_moment_goes_on_as_its_episode_did(agent, simulators):
    """A second time, from a simulator that has been elsewhere in between."""
    moment = simulators_lib.reach(agent, 1, FIRST, FIRST + 1, seed=0)[0]
    episode = simulators_lib.Simulators(agent, 1, seed=0)
    for _ in range(FIRST):
        episode.step(episode.policy())
    actions = np.random.default_rng(0).uniform(-1, 1, (N, HORIZON, 3)).astype(np.float32)
    simulators_lib.execute(simulators, moment, -actions, 0)
    real = simulators_lib.execute(simulators, moment, np.repeat(actions[:1], N, 0), AFTER)
    assert (real.returns == real.returns[0]).all()
    states, rewards = [], []
    for n in range(HORIZON):
        states.append(episode.observations()[0])
        rewards.append(episode.step(actions[:1, n])[0])
    np.testing.assert_array_equal(real.states[0], np.stack(states))
    np.testing.assert_array_equal(real.rewards[0], np.stack(rewards))


def test_an_episode_that_is_over_earns_and_moves_no_more(simulators, moments):
    simulators.put(moments[0])
    simulators.alive[1] = False
    before = simulators.observations()
    rewards = simulators.step(np.zeros((N, 3), np.float32))
    moved = (simulators.observations() != before).any(1)
    assert (rewards != 0).tolist() == moved.tolist() == [True, False, True, True, True]


def settings(run, **overrides):
    given = {"run": run, "only": ("m",), "windows": 8, "moments": 2, "candidates": 3}
    given |= {"first_step": FIRST, "last_step": 8, "steps_after": 2} | overrides
    return cli.parse([f"--config.{k}={v}" for k, v in given.items()], "configs/plan_signal.py")


def test_a_row_holds_the_way_to_plan_and_its_metrics(tiny_run, tmp_path, capsys):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    plan_signal.main(settings(run))
    (row,) = records.read_jsonl(run / "signal.jsonl")
    assert set(row) == {"way", "step", "seed", "moments", "settings", "metrics"}
    assert (row["way"], row["moments"], row["settings"]["candidates"]) == ("m", 2, 3)
    ranked = {f"states_explained_{n}" for n in (1, 2, 3)} | {"rewards_explained", "spread"}
    ranked |= {"rank_correlation", "gain", "top_gain", "best_gain", "predicted_spread"}
    ranked |= {"effective_candidates", "calibration_slope"}
    moved = {f"{m}_{k}" for m in ("states", "rewards", "returns") for k in ("error", "shift")}
    moved |= {f"{m}_spread" for m in ("states", "rewards", "returns")}
    counts = {"flat_utilities", "flat_returns", "calibration_intercept"}
    assert set(row["metrics"]) == ranked | {f"{k}_error" for k in ranked} | moved | counts
    assert "rank_correlation" in capsys.readouterr().out


def test_ways_that_need_a_critic_are_left_out_unless_asked_for(agent):
    names = plan_signal.ways(settings("run", only=()), agent)
    assert set(names) == {"m", "m_fd", "m_undiscounted", "m_fd_undiscounted"}
    with pytest.raises(UserError, match="this run has no critic"):
        plan_signal.ways(settings("run", only=("q",)), agent)
    with pytest.raises(UserError, match=r"unknown ways \['z'\]; choose among m, m_fd"):
        plan_signal.ways(settings("run", only=("z",)), agent)


@pytest.mark.parametrize("numbers", [(0, 4, 8), (1, 3, 8), (1, 5, 5)])
def test_moments_that_cannot_be_reached_are_refused(agent, numbers):
    with pytest.raises(UserError, match="give at least one, a first step from 4 on"):
        simulators_lib.reach(agent, *numbers, seed=0)


def test_an_environment_without_a_state_to_set_is_refused(agent, monkeypatch):
    empty = types.SimpleNamespace(unwrapped=types.SimpleNamespace())
    monkeypatch.setattr(simulators_lib.make, "make", lambda _: empty)
    with pytest.raises(UserError, match="cannot be put into a given state"):
        simulators_lib.Simulators(agent, 1, seed=0)
