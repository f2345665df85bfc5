"""Measure what a planner has to choose by: do predicted utilities say which actions are better?

    python -m experiments.plan_signal --config.run=runs/pretrain/hopper-medium-m3pc-small-seed0

Two instruments, one row of RUN/signal.jsonl for each way to plan.

Sensitivity, on held-out windows: how far predicted returns and values move when random actions
take the place of the true ones, beside the error of the prediction.

Ranking, in the simulator: at states that the policy reaches, every candidate is executed and then
the policy goes on; are the candidates with higher utility really better? `states_explained` and
`rewards_explained` say how much of the difference between candidates the model predicts. `gain` is
the return that a draw by the planner's weights adds to that of an average candidate, `top_gain`
what the candidate of the highest utility adds, `best_gain` what the best one would.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.box
import rich.table
from ml_collections import config_dict
from scipy import stats as scipy_stats

from experiments import build, cli, runs
from mtm_jax import agent as agent_lib
from mtm_jax import dataset, iql, planner, progress, records, tokens
from mtm_jax.config import PlanConfig
from mtm_jax.envs import make
from mtm_jax.errors import UserError
from mtm_jax.planning import context as context_lib
from mtm_jax.planning import forward, proposals, roles

SIGNAL_FILE = "signal.jsonl"


class Moment(NamedTuple):
    """A state on the way of the policy, in the simulator and in the planner's window."""

    qpos: np.ndarray
    qvel: np.ndarray
    context: context_lib.Context  # leading axis 1


def main(config: config_dict.ConfigDict) -> None:
    """Measure every way to plan that the configuration names, and print a table."""
    if not config.run:
        raise UserError("no run was named; give --config.run=FOLDER")
    folder = pathlib.Path(config.run)
    agent = agent_lib.load(folder)
    windows, moments = held_out(folder, config), reach(agent, config)
    rows = []
    for name, settings in ways(config, agent).items():
        row = {"way": name, "step": agent.step, "moments": len(moments), "settings": settings}
        row |= sensitivity(agent, windows, settings, config)
        row |= ranking(agent, moments, settings, config)
        records.append(folder / SIGNAL_FILE, row)
        rows.append(row)
    show(rows)


def ways(config: config_dict.ConfigDict, agent: agent_lib.Agent) -> dict[str, dict]:
    """Settings of each way to plan, by name; those that need a critic only where there is one."""
    shared = dict(config.plan)
    unknown = sorted(set(config.only) - set(config.ways))
    if unknown:
        raise UserError(f"unknown ways {unknown}; choose among {', '.join(config.ways)}")
    names = config.only or config.ways
    found = {name: shared | dict(config.ways[name]) for name in names}
    return {k: v for k, v in found.items() if agent.critic is not None or v["method"] != "m3pc_q"}


def plan_settings(settings: Mapping) -> PlanConfig:
    """Build the plan of one way."""
    fields = {k: v for k, v in settings.items() if k not in ("method", "target_fraction")}
    return planner.plan_config(settings["method"], **fields)


def reach(agent: agent_lib.Agent, config: config_dict.ConfigDict) -> list[Moment]:
    """Let the policy act in one environment per moment until a random step of the episode."""
    rng = np.random.default_rng(config.seed)
    stops = rng.integers(config.first_step, config.last_step, config.moments)
    simulators = Simulators(agent, config.moments, config.seed)
    moments: list[Moment] = []
    with progress.progress(int(stops.max()), "reaching states") as bar:
        for step in range(int(stops.max()) + 1):
            for e in np.flatnonzero((stops == step) & simulators.alive):
                moments.append(simulators.moment(int(e)))
            simulators.step(simulators.policy())
            bar.update(step)
    if not moments:
        raise UserError(
            f"all {config.moments} episodes ended before their step was reached; lower "
            f"--config.last_step={config.last_step}"
        )
    return moments


class Simulators:
    """Environments side by side, with the policy's windows; nothing is reset."""

    def __init__(self, agent: agent_lib.Agent, count: int, seed: int):
        self._agent = agent
        self.envs = [make.make(agent.info.env_id).unwrapped for _ in range(count)]
        obs = np.stack([env.reset(seed=seed + e)[0] for e, env in enumerate(self.envs)])
        self.alive = np.ones(count, bool)
        target = jnp.float32(agent.target_return(1.0) / agent.info.max_episode_steps)
        choose = functools.partial(roles.act, agent.model, agent.params, agent.stats, target=target)
        self._choose = jax.jit(jax.vmap(choose))
        extend = functools.partial(context_lib.extend, history=agent.history)
        self._extend = jax.jit(jax.vmap(extend))
        dims, window = len(agent.info.action_low), agent.model.config.window
        begin = functools.partial(context_lib.begin, action_dim=dims, window=window)
        self.contexts = jax.vmap(begin)(jnp.asarray(obs, jnp.float32))

    def put(self, moment: Moment) -> None:
        """Bring all environments to one state."""
        for env in self.envs:
            env.set_state(moment.qpos, moment.qvel)
        self.alive[:] = True
        count = len(self.envs)
        self.contexts = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), moment.context)

    def moment(self, e: int) -> Moment:
        """Note the present state of one environment."""
        data = self.envs[e].data
        context = jax.tree.map(lambda x: x[e : e + 1], self.contexts)
        return Moment(data.qpos.copy(), data.qvel.copy(), context)

    def policy(self) -> np.ndarray:
        """Ask the return-conditioned policy, [E, A] in [-1, 1]."""
        return np.asarray(self._choose(self.contexts))

    def observations(self) -> np.ndarray:
        """Return the present states, [E, S]."""
        return np.asarray(self.contexts.states)[np.arange(len(self.envs)), self.contexts.slot]

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Step those that still run; return the rewards, [E], zero where an episode is over."""
        rewards = np.zeros(len(self.envs), np.float32)
        obs = self.observations()
        raw = self._agent.to_environment(actions)
        for e in np.flatnonzero(self.alive):
            obs[e], rewards[e], terminal, _, _ = self.envs[e].step(raw[e])
            self.alive[e] = not terminal
        self.contexts = self._extend(self.contexts, actions, rewards, obs)
        return rewards


def ranking(
    agent: agent_lib.Agent, moments: list[Moment], settings: Mapping, config: config_dict.ConfigDict
) -> dict[str, float]:
    """Execute every candidate at every moment; compare utilities with what they earn."""
    settings = settings | {"candidates": config.candidates}
    plans = planner.Decider(agent, plan_settings(settings), settings["target_fraction"])
    simulators = Simulators(agent, config.candidates, config.seed)
    found: dict[str, list[float]] = {}
    with progress.progress(len(moments), f"executing {settings['method']}") as bar:
        for k, moment in enumerate(moments):
            explained = plans.explain(moment.context, jax.random.key(config.seed + k))
            plan = jax.tree.map(lambda x: np.asarray(x[0]), explained)
            real = execute(simulators, moment, plan.candidates, config.steps_after)
            for name, value in compare(plan, real, agent.stats["states"]).items():
                found.setdefault(name, []).append(value)
            bar.update(k + 1)
    errors = {f"{k}_error": float(np.std(v) / np.sqrt(len(v))) for k, v in found.items()}
    return {name: float(np.mean(values)) for name, values in found.items()} | errors


class Real(NamedTuple):
    """What N candidates did in the simulator."""

    states: np.ndarray  # [N, S], which the horizon's last step starts from
    rewards: np.ndarray  # [N], until there
    returns: np.ndarray  # [N], until the policy that went on was stopped


def execute(
    simulators: Simulators, moment: Moment, candidates: np.ndarray, steps_after: int
) -> Real:
    """Execute the actions of each candidate, [N, h, A], and the policy's after them."""
    simulators.put(moment)
    earned = np.zeros(len(candidates))
    for n in range(candidates.shape[1]):
        states, rewards = simulators.observations(), earned.copy()
        earned += simulators.step(candidates[:, n])
    for _ in range(steps_after):
        earned += simulators.step(simulators.policy())
    return Real(states, rewards, earned)


def compare(plan: forward.Plan, real: Real, stats: tokens.Stats) -> dict[str, float]:
    """Compare one plan's candidates with what they did; see the top of this module."""
    earned, last = real.returns, plan.rollout.states.shape[1] - 1
    states = [
        np.asarray(tokens.encode(stats, x)) for x in (plan.rollout.states[:, -1], real.states)
    ]
    rewards = plan.rollout.rewards[:, :last].sum(1)
    return {
        "states_explained": explained(*states),
        "rewards_explained": explained(rewards[:, None], real.rewards[:, None]),
        "rank_correlation": rank_correlation(plan.utilities, earned),
        "gain": float(plan.weights @ earned - earned.mean()),
        "top_gain": float(earned[np.argmax(plan.utilities)] - earned.mean()),
        "best_gain": float(earned.max() - earned.mean()),
        "spread": float(earned.std()),
        "predicted_spread": float(plan.utilities.std()),
        "effective_candidates": float(1.0 / (plan.weights**2).sum()),
    }


def explained(predicted: np.ndarray, real: np.ndarray) -> float:
    """Share of the variance between candidates that is predicted, [N, D] each; 1 at best.

    Differences from the mean candidate are compared: a common error leads no choice astray.
    """
    difference, truth = predicted - predicted.mean(0), real - real.mean(0)
    total = float((truth**2).sum())
    return 1.0 - float(((difference - truth) ** 2).sum()) / total if total > 0 else 0.0


def rank_correlation(utilities: np.ndarray, earned: np.ndarray) -> float:
    """Spearman's correlation; zero where there is nothing to rank."""
    if np.ptp(utilities) == 0 or np.ptp(earned) == 0:
        return 0.0
    return float(scipy_stats.spearmanr(utilities, earned).statistic)


def sensitivity(
    agent: agent_lib.Agent,
    windows: dataset.Windows,
    settings: Mapping,
    config: config_dict.ConfigDict,
) -> dict[str, float]:
    """Compare predictions for held-out windows under true actions and under random ones.

    `*_error` is the root mean squared error of what is predicted for the last step of the horizon
    under the true actions, `*_shift` how far random actions move that prediction, `*_spread` how
    much the truth varies; returns are return tokens. The error of a critic is not known: instead
    of it, how far the members of its ensemble differ.
    """
    plan = plan_settings(settings | {"candidates": 2})
    slot, h = plan.history, plan.horizon
    world = proposals.plain_world(agent.model, agent.params, agent.stats, plan, h)
    true = windows.values["actions"][:, slot : slot + h]
    other = jax.random.uniform(jax.random.key(config.seed), true.shape, minval=-1.0)

    @jax.jit
    @jax.vmap
    def predict(values: Mapping[str, jax.Array], actions: jax.Array) -> proposals.Rollout:
        zero = jnp.zeros((), jnp.int32)
        context = context_lib.Context(
            values["states"], values["actions"], values["rewards"], zero + slot, zero
        )
        return world.rollout(context, actions)

    predicted = predict(windows.values, jnp.stack([true, other], 1))
    last = slot + h - 1
    truths = {
        "states": tokens.encode(agent.stats["states"], windows.values["states"][:, last]),
        "rewards": windows.values["rewards"][:, max(last - 1, slot), 0],
        "returns": windows.values["returns"][:, last, 0],
    }
    found = {
        "states": tokens.encode(agent.stats["states"], predicted.states[:, :, -1]),
        "rewards": predicted.rewards[:, :, max(h - 2, 0)],
        "returns": predicted.return_tokens[:, :, -1],
    }
    rows = {}
    for name, truth in truths.items():
        rows |= {
            f"{name}_error": rms(found[name][:, 0] - truth),
            f"{name}_shift": rms(found[name][:, 1] - found[name][:, 0]),
            f"{name}_spread": rms(truth - truth.mean(0)),
        }
    if settings["method"] == "m3pc_q":
        critic = agent.require_critic()
        now = windows.values["states"][:, slot]
        q_true, q_other = (
            iql.q_values(critic.params, critic.stats, now, a[:, 0]) for a in (true, other)
        )
        rows |= {
            "q_error": rms(q_true[0] - q_true[-1]),
            "q_shift": rms(q_other.min(0) - q_true.min(0)),
            "q_spread": rms(q_true.min(0) - q_true.min(0).mean()),
        }
    return rows


def rms(x: jax.Array) -> float:
    """Root mean square."""
    return float(jnp.sqrt(jnp.mean(jnp.square(x))))


def held_out(folder: pathlib.Path, config: config_dict.ConfigDict) -> dataset.Windows:
    """Draw windows from the split that the run was not trained on."""
    run = config_dict.ConfigDict(runs.read_config(folder))
    data, window = build.load_data(run), run.model.window
    usable = np.flatnonzero(np.asarray(data.valid.window_steps) == window)
    index = np.random.default_rng(config.seed).choice(usable, config.windows)
    return dataset.take_windows(data.valid, jnp.asarray(index), window)


def show(rows: list[dict]) -> None:
    """Print what was measured, a column for each way to plan."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("")
    for row in rows:
        table.add_column(row["way"], justify="right")
    names = dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, float))
    for name in names:
        table.add_row(name, *(f"{row[name]:.3f}" if name in row else "" for row in rows))
    rich.print(table)


if __name__ == "__main__":
    cli.run(main)
