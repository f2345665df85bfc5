"""Kills programs at random moments and holds what they end with to undisturbed runs.

    make chaos RUNS=50
    PYTHONPATH=. python tests/chaos.py --runs=50 --seed=0 --out=FOLDER

Every run is killed (SIGKILL) once or more, continued by the same command each time, and must end
with the parameters, optimiser, metrics, actors and returns of an undisturbed run, bit for bit.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import tiny_programs

PROGRAMS = (*tiny_programs.TRAINING, tiny_programs.WHOLE, tiny_programs.ONLINE)
# Often, so that kills fall into saves.
SAVES = {"pretrain": 8, "critic": 20, "behaviours": 50, tiny_programs.WHOLE: 8}
SAVES[tiny_programs.ONLINE] = 20
MAX_KILLS = 3  # of one run


def main() -> int:
    """Run, report; the exit code is the number of runs that ended differently."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="", help="folder for the runs; it is kept")
    parser.add_argument("--programs", nargs="+", default=PROGRAMS)
    given = parser.parse_args()
    out = pathlib.Path(given.out or tempfile.mkdtemp(prefix="chaos-")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(out / "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    tiny_programs.write_source(out / "mine.npz")
    expected = {name: undisturbed(name, out) for name in given.programs}
    rng, moments, wrong = random.Random(given.seed), collections.Counter(), 0
    for number in range(given.runs):
        name = given.programs[number % len(given.programs)]
        ending, seconds = expected[name]
        kills, found = disturbed(name, out, number, seconds, rng)
        moments.update(f"{name}: {kill}" for kill in kills)
        same = found == ending
        wrong += not same
        verdict = "same" if same else "DIFFERENT"
        where = "; ".join(kills)
        print(f"{number + 1}/{given.runs} {name}: {where}: {verdict}", flush=True)
    for moment, count in sorted(moments.items()):
        print(f"{count:4d} kills at {moment}")
    print(f"{given.runs - wrong} of {given.runs} ended like an undisturbed run; runs in {out}")
    return min(wrong, 100)


def undisturbed(name: str, out: pathlib.Path) -> tuple[dict, float]:
    """Run to the end, a second time with everything compiled; return the ending and seconds."""
    endings = []
    for turn in ("a", "b"):
        program = tiny_programs.make(name, out / "mine.npz", out / f"{name}-undisturbed-{turn}")
        began = time.monotonic()
        code, said = program.run(save_every=SAVES[name])
        if code:
            raise SystemExit(said)
        endings.append(program.ending())
    if endings[0] != endings[1]:
        raise SystemExit(f"two undisturbed runs of {name} end differently")
    return endings[0], time.monotonic() - began


def disturbed(
    name: str, out: pathlib.Path, number: int, seconds: float, rng: random.Random
) -> tuple[list[str], dict]:
    """Kill and continue a run; return where the kills fell and the ending."""
    folder, kills = out / f"{name}-{number:03d}", []
    while not kills:  # it may end before its first kill
        for left in (folder, folder.with_name(f"{folder.name}-data")):
            shutil.rmtree(left, ignore_errors=True)
        program = tiny_programs.make(name, out / "mine.npz", folder)
        kills = killed(program, seconds, rng)
    code, said = program.run(save_every=SAVES[name])
    return kills, program.ending() if code == 0 else {"said": said}


def killed(program: tiny_programs.Program, seconds: float, rng: random.Random) -> list[str]:
    """Start and kill a run once or more, until it ends; return where the kills fell."""
    kills = []
    for _ in range(rng.randint(1, MAX_KILLS)):
        process = program.start(save_every=SAVES[program.name])
        try:
            process.wait(timeout=rng.uniform(0.1, 1.0) * seconds)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills.append(moment(program))
    return kills


def moment(program: tiny_programs.Program) -> str:
    """Say from what it left what a killed program was doing."""
    if program.data and not any(program.data.glob("minari/mtm_jax/hopper*")):
        return "collecting data" if program.data.exists() else "start"
    inside = program.folder / "checkpoints"
    names = {f.name for f in inside.iterdir()} if inside.is_dir() else set()
    if any(name.startswith(".removed") for name in names):
        return "removing a checkpoint"
    if any(not name.isdigit() for name in names):
        return "saving a checkpoint"
    if any((program.folder / "replay").glob(".*")):
        return "saving transitions"
    if any(program.folder.rglob(".*.npz")):
        return "writing an actor"
    if not (program.folder / "metrics.jsonl").exists():
        return "start"
    if program.name == tiny_programs.WHOLE and str(tiny_programs.STEPS) in names:
        return "evaluation"
    return "training after a save" if names else "training before the first save"


if __name__ == "__main__":
    sys.exit(main())
