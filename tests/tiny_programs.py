"""The training programs on a tiny scale, as processes, and what they end with."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import NamedTuple

import numpy as np

from experiments import cli, runs
from mtm_jax import checkpoint, records, trees

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = ("pretrain", "critic", "behaviours")
TINY_PRETRAIN = (
    *("steps=120", "batch_size=4", "log_every=4", "save_every=1000", "validate_every=1000"),
    *("model.width=8", "model.heads=2", "model.encoder_layers=1", "model.window=4"),
    "eval.history=2",
)
TINY_CRITIC = (
    *("critic.steps=400", "critic.hidden=(4,)", "critic.batch_size=4"),
    *("log_every=10", "save_every=1000"),
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

    def start(self, **more) -> subprocess.Popen:
        """Start the process; `more` are further keys."""
        argv = [sys.executable, "-m", f"experiments.{self.name}"]
        argv += flags((*self.keys, *(f"{k}={v}" for k, v in more.items())))
        return subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, **more) -> tuple[int, str]:
        """Run to the end; return the exit code and all that was printed."""
        process = self.start(**more)
        out, err = process.communicate(timeout=600)
        return process.returncode, out + err

    def ending(self) -> dict:
        """Digests of the last training state and of all actors, and the metrics."""
        checkpoints = checkpoint.Checkpoints(self.folder, read_only=True)
        digests = checkpoints.restore_meta(checkpoints.steps()[-1])["digests"]
        found = {part: digests[part] for part in ("model", "train")}
        found["metrics"] = records.read_jsonl(self.folder / "metrics.jsonl")
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
    config = "--config=configs/pretrain.py:custom-toy,preset=paper"
    keys = (config, f"source={source}", *TINY_PRETRAIN, f"out={folder}")
    if name == "pretrain":
        return Program(name, keys, folder)
    # The run has saved nothing yet: its critic needs its configuration alone.
    runs.open_run(folder, runs.to_json(cli.parse(flags(keys), "configs/pretrain.py")))
    return Program(name, (*TINY_CRITIC, f"run={folder}"), folder / "critic")
