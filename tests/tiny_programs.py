"""Programs on a tiny scale, as processes, and what they end with."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import numpy as np

from experiments.runtime import cli, runs
from mtm_jax.io import checkpoint, records, trees

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRAINING = ("pretrain", "critic", "behaviours")
ONLINE = "m3pc_online"  # finetunes a run with a critic, which is made first
WHOLE = "whole"  # collects a built-in data set, pretrains and evaluates, in one program
STEPS = 120  # of pretraining
TINY_PRETRAIN = (
    *(f"steps={STEPS}", "batch_size=4", "log_every=4", "save_every=1000", "validate_every=1000"),
    *("model.width=8", "model.heads=2", "model.encoder_layers=1", "model.window=4"),
    "eval.history=2",
)
TINY_WHOLE = (
    *TINY_PRETRAIN,
    *("data.steps=30000", "eval.episodes=10", "model.positions=released"),
)
TINY_CRITIC = (
    *("critic.steps=400", "critic.hidden=(4,)", "critic.batch_size=4"),
    *("log_every=10", "save_every=1000"),
)
TINY_ONLINE = (
    *("steps=600", "updates=50", "chunk=1", "critic_updates=2", "batch_size=4", "online_after=50"),
    *("buffer.episodes=5", "buffer.steps=1000", "plan.candidates=2", "plan.history=2"),
    *("plan.horizon=2", "eval.methods=('rcbc',)", "eval.episodes=1", "eval.every=200"),
    *("save_every=100", "learning_rate=1e-3"),
)
TINY_BEHAVIOURS = (
    *("total_steps=2000", "num_envs=2", "steps_per_phase=5", "random_steps=100"),
    *("snapshot_every=50", "save_every=100000", "replay_capacity=150"),
    *("sac.hidden=(8,8)", "sac.batch_size=4"),
)


class Program(NamedTuple):
    """A program on a tiny scale, whose checkpoints go into `folder`."""

    name: str
    keys: tuple[str, ...]
    folder: pathlib.Path
    data: pathlib.Path | None = None  # where it collects data, if it does

    def start(self, **more) -> subprocess.Popen:
        """Start the process; `more` are further keys."""
        module = "pretrain" if self.name == WHOLE else self.name
        argv = [sys.executable, "-m", f"experiments.{module}"]
        argv += flags((*self.keys, *(f"{k}={v}" for k, v in more.items())))
        env = os.environ | ({"MTM_JAX_DATA": str(self.data)} if self.data else {})
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(argv, cwd=ROOT, env=env, **streams)

    def run(self, **more) -> tuple[int, str]:
        """Run to the end; return the exit code and all that was printed."""
        process = self.start(**more)
        out, err = process.communicate(timeout=600)
        return process.returncode, out + err

    def ending(self) -> dict:
        """Digests of the last training state and of all actors, the metrics and the returns."""
        checkpoints = checkpoint.Checkpoints(self.folder, read_only=True)
        digests = checkpoints.restore_meta(checkpoints.steps()[-1])["digests"]
        found = {part: digests[part] for part in ("model", "train")}
        found["metrics"] = records.read_jsonl(self.folder / "metrics.jsonl")
        results = self.folder / "results.jsonl"
        rows = records.read_jsonl(results) if results.exists() else []
        found["returns"] = {row["method"]: row["returns"] for row in rows}
        for path in sorted((self.folder / "actors").glob("*.npz")):
            with np.load(path) as actor:
                found[path.name] = trees.digests(dict(actor))
        return found


def flags(keys: tuple[str, ...]) -> list[str]:
    """Turn "KEY=VALUE" into what a command line takes."""
    return [key if key.startswith("--") else f"--config.{key}" for key in keys]


def write_source(path: pathlib.Path) -> None:
    """Store data without a simulator, so that nothing is evaluated."""
    rng = np.random.default_rng(0)
    np.savez(
        path,
        observations=rng.normal(size=(60, 4)),
        actions=np.tanh(rng.normal(size=(60, 2))),
        rewards=rng.normal(size=60),
        terminals=np.zeros(60, bool),
        lengths=[20, 25, 15],
    )


def make(name: str, source: pathlib.Path, folder: pathlib.Path) -> Program:
    """Make a program that writes into a folder."""
    if name == "behaviours":
        return Program(name, (*TINY_BEHAVIOURS, f"out={folder}"), folder)
    if name == WHOLE:
        keys = ("--config=configs/pretrain.py:hopper-medium,preset=small", *TINY_WHOLE)
        return Program(
            name, (*keys, f"out={folder}"), folder, folder.with_name(f"{folder.name}-data")
        )
    if name == ONLINE:
        keys = (*TINY_ONLINE, f"run={online_source(folder.parent / 'online-source')}")
        return Program(name, (*keys, f"out={folder}"), folder)
    config = "--config=configs/pretrain.py:custom-toy,preset=paper"
    keys = (config, f"source={source}", *TINY_PRETRAIN, f"out={folder}")
    if name == "pretrain":
        return Program(name, keys, folder)
    # The run has saved nothing yet: its critic needs its configuration alone.
    runs.open_run(folder, runs.to_json(cli.parse(flags(keys), "configs/pretrain.py")))
    return Program(name, (*TINY_CRITIC, f"run={folder}"), folder / "critic")


def online_source(folder: pathlib.Path) -> pathlib.Path:
    """Make a run of hopper with a critic, or take the one that is there."""
    run, data = folder / "run", folder / "hopper.npz"
    if (run / "critic" / "checkpoints").is_dir():
        return run
    folder.mkdir(parents=True, exist_ok=True)
    rng, lengths = np.random.default_rng(0), [20, 25, 30, 15]
    steps = sum(lengths)
    observations, actions = rng.normal(size=(steps, 11)), np.tanh(rng.normal(size=(steps, 3)))
    rewards, terminals = rng.normal(size=steps), np.zeros(steps, bool)
    arrays = {"observations": observations, "actions": actions, "rewards": rewards}
    np.savez(data, **arrays, terminals=terminals, lengths=lengths)
    tiny = (*TINY_PRETRAIN, "steps=20", "eval.episodes=1", f"source={data}", f"out={run}")
    named = ("--config=configs/pretrain.py:hopper-mine,preset=small", *tiny)
    for program in (
        Program("pretrain", named, run),
        Program("critic", (*TINY_CRITIC, "critic.steps=20", f"run={run}"), run / "critic"),
    ):
        code, said = program.run()
        if code:
            raise SystemExit(said)
    return run
