"""Whatever a command is given that is wrong, it ends in one sentence and exit code 2.

A line of the table is a program, its arguments and what the sentence says; {tmp}, {run} and {data}
stand for an empty folder, a copy of a small run, and a data file. A third column prepares files.
"""

import importlib
import json
import os
import re
import shutil
import sys
import types
import zipfile

import gymnasium
import h5py
import numpy as np
import pytest

from experiments.runtime import cli, failures
from mtm_jax.data.builtin import collector
from mtm_jax.io import checkpoint

pytestmark = pytest.mark.usefixtures("clean_logging", "empty_home")

PRETRAIN = (
    "--config=configs/pretrain.py:hopper-medium,preset=paper --config.source={data} "
    "--config.out={tmp}/out --config.model.width=16 --config.model.heads=2 --config.steps=31 "
    "--config.model.encoder_layers=1 --config.batch_size=16 "
)
MINE = PRETRAIN.replace("hopper-medium", "custom").replace("{data}", "{tmp}/mine.npz")
ROW = {"dataset": "d", "method": "rcbc", "seed": 0, "step": 1, "normalized_scores": [1.0]}
ROW |= {"settings": {}}


def text(name, content):
    """Prepare a file of text."""

    def prepare(tmp):
        path = tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    return prepare


def rows(*found):
    return text("r.jsonl", "".join(json.dumps(row) + "\n" for row in found))


def mine(name="mine.npz", **changes):
    """Prepare data of one's own, changed."""

    def prepare(tmp):
        random = np.random.default_rng(0)
        arrays = {
            "observations": random.normal(size=(60, 4)),
            "actions": np.tanh(random.normal(size=(60, 2))),
            "rewards": np.zeros(60),
            "lengths": [20, 40],
        }
        np.savez(tmp / name, **(arrays | changes))

    return prepare


def declares_rows(tmp):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % 2**70
    member = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
    with zipfile.ZipFile(tmp / "mine.npz", "w") as archive:
        archive.writestr("observations.npy", member)


def pipe(name):
    return lambda tmp: os.mkfifo(tmp / name)


def linked(link, name, **attributes):
    """Prepare an HDF5 file of which a part lies behind a named pipe."""

    def prepare(tmp):
        os.mkfifo(tmp / "pipe")
        with h5py.File(tmp / name, "w") as file:
            if attributes:
                file.create_group("data/demo_0")
                file["data"].attrs.update(attributes)
            if link:
                file[link] = h5py.ExternalLink(str(tmp / "pipe"), "/")

    return prepare


ABSOLUTE = {"env_name": "Lift", "env_kwargs": {"controller_configs": {"control_delta": False}}}
ABSOLUTE = json.dumps(ABSOLUTE)


def recorded(**settings):
    """Prepare a Minari data set that was recorded in Hopper-v5 under other settings."""
    spec = json.loads(gymnasium.spec("Hopper-v5").to_json()) | settings
    return text("x/data/metadata.json", json.dumps({"env_spec": json.dumps(spec)}))


def with_nan():
    array = np.zeros(60)
    array[7] = np.nan
    return array


def cut(name):
    """Prepare the first half of a file."""

    def prepare(tmp):
        path = next(tmp.glob(name))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return prepare


def cut_data(tmp):
    shutil.copy(tmp / "data.hdf5", tmp / "hopper.hdf5")
    cut("hopper.hdf5")(tmp)


def cut_arrays(tmp):
    for path in (tmp / "run/checkpoints/1/model/d").iterdir():
        path.write_bytes(path.read_bytes()[:10])


def a_config(change):
    """Prepare a changed configuration of the run."""

    def prepare(tmp):
        path = tmp / "run/config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return prepare


def another_program(tmp):
    shutil.rmtree(tmp / "run/checkpoints")
    state = {"actor": np.zeros(2)}
    checkpoint.Checkpoints(tmp / "run").save(1, state, state, {"replay": []})


def no_checkpoint(tmp):
    shutil.rmtree(tmp / "run/checkpoints/1")


def escaping(tmp):
    with zipfile.ZipFile(tmp / "walker_run.zip", "w") as archive:
        archive.writestr("../episode_000000_1.npz", "")


def actor(inputs):
    """Prepare the run of an actor for so many inputs."""

    def prepare(tmp):
        (tmp / "actors").mkdir()
        shapes = [(inputs, 8), (8, 8), (8, 6)]
        arrays = {f"layer_{k}/kernel": np.zeros(shape) for k, shape in enumerate(shapes)}
        arrays |= {f"layer_{k}/bias": np.zeros(shape[1]) for k, shape in enumerate(shapes)}
        np.savez(tmp / "actors/actor_00000001.npz", step=1, seed=0, **arrays)

    return prepare


def fake_torch(tmp):
    """Stand in for torch, which no other program needs; the file is damaged."""

    def load(*args, **options):
        raise IndexError("list index out of range")

    (tmp / "model.pt").write_bytes(b"PK\x03\x04")
    torch = types.ModuleType("torch")
    torch.serialization = types.SimpleNamespace(safe_globals=lambda kinds: open(tmp / "model.pt"))
    torch.load = load
    sys.modules["torch"] = torch


CASES = [
    # The command line.
    ("pretrain", "--config.modle.width=3", "unknown key --config.modle.width; did you mean"),
    ("pretrain", "--config.steps=many", "--config.steps=many: the value must be of type int"),
    ("pretrain", "--config.use_older=maybe", "type bool"),
    ("pretrain", "--config=configs/pretrain.py:ant-medium", "unknown environment 'ant'"),
    ("pretrain", "--config=configs/pretrain.py:hopper-x,preset=big", "unknown option 'preset=big'"),
    ("pretrain", "--config.steps=99999999999999999999", "steps is 9+; give a number of at most 21"),
    ("pretrain", "--config.seed=4294967296", "seed is 4294967296; give a number of at most 4294"),
    ("pretrain", "--config.loss.entropy_target=nan", "loss.entropy_target is nan; give a number"),
    ("pretrain", "--config.optim.learning_rate=1e300", "give a number of at most 3e"),
    (
        "pretrain",
        "--config.sweep.learning_rate=(nan,)",
        r"sweep.learning_rate is .*\(nan,\).*; give",
    ),
    ("pretrain", "--config.sweep.learning_rate=('a',)", "give finite numbers"),
    ("pretrain", PRETRAIN + "--config.sweep.learning_rate=(inf,)", "give finite numbers"),
    ("pretrain", PRETRAIN + "--config.seeds=2000000000", "from 1 to 1000"),
    ("critic", "--config.run={run} --config.critic.hidden=('a',)", r"hidden is \('a',\)"),
    ("critic", "--config.run={run} --config.critic.hidden=(nan,)", "hidden is"),
    ("critic", "--config.run={run} --config.critic.hidden=(99999999999999999999,)", "at most"),
    ("sweep", "--config.seeds=('a',)", r"seeds=\('a',\): the value must be of type tuple"),
    ("sweep", "--config.names=(1,)", "must be of type tuple"),
    ("critic", "--config.run=x --config.seeds=2000000000", "from 1 to 1000"),
    ("mask_figure", "--config.window=99999999999999999999", "at most 2147483647"),
    ("bench", "--config.seeds=(-1,)", r"seeds are \(-1,\)"),
    ("bench", "--config.widths=(99999999999999999999,)", "at most 2147483647"),
    ("pretrain", "--config=nowhere.py", "no configuration file 'nowhere.py'"),
    ("pretrain", "--verbose", "unknown flag --verbose"),
    ("pretrain", "now", "unexpected argument 'now'"),
    ("pretrain", "--config.env=hopper", "would not change what depends on it"),
    # Settings of a pretraining.
    ("pretrain", PRETRAIN + "--config.seed=-1", "seed is -1; it must be from 0"),
    ("pretrain", PRETRAIN + "--config.steps=0", "at least one step"),
    ("pretrain", PRETRAIN + "--config.batch_size=0", "batch_size is 0"),
    ("pretrain", PRETRAIN + "--config.micro_batches=3", "does not divide the batch_size 16"),
    ("pretrain", PRETRAIN + "--config.save_every=0", "save_every is 0 steps"),
    ("pretrain", PRETRAIN + "--config.optim.warmup_fraction=nan", "warmup_fraction is nan"),
    ("pretrain", PRETRAIN + "--config.optim.learning_rate=-1", "learning_rate is -1"),
    ("pretrain", PRETRAIN + "--config.masks.patterns.rcbc=-1", r"patterns\.rcbc is -1"),
    (
        "pretrain",
        PRETRAIN + "--config.masks.patterns.random_autoregressive=0",
        r"patterns are \{\}; weights must be finite",
    ),
    ("pretrain", PRETRAIN + "--config.masks.modality_weights.states=inf", "must be finite"),
    ("pretrain", PRETRAIN + "--config.masks.fractions=(2.0,)", r"fractions are \(2.0,\)"),
    ("pretrain", PRETRAIN + "--config.model.width=9", "width 9 must be even"),
    ("pretrain", PRETRAIN + "--config.model.window=100", "less than the window of 100"),
    ("pretrain", PRETRAIN + "--config.data.episodes_fraction=0.01", "leaves none of its 11 episo"),
    ("pretrain", PRETRAIN + "--config.data.labelled_share=1", "labelled_share is 1.0; it must lie"),
    ("mtm_study", "--config.study=roles", "unknown study 'roles'; choose among capabilities"),
    ("pretrain", PRETRAIN + "--config.model.dropout=nan", "dropout is nan"),
    ("pretrain", PRETRAIN + "--config.model.bins=4", "need variant=mtm"),
    ("pretrain", PRETRAIN + "--config.loss.entropy_reduction=mean", "choose 'joint'"),
    ("pretrain", PRETRAIN + "--config.eval.methods=('ppo',)", "choose among bc, rcbc"),
    ("pretrain", PRETRAIN + "--config.eval.history=8", "history is 8; with a window of 8"),
    ("pretrain", PRETRAIN + "--config.data.train_fraction=1.5", "fraction is 1.5"),
    ("pretrain", PRETRAIN + "--config.data.steps=0", "data.steps is 0; it must be at least 1"),
    # Data of a pretraining.
    ("pretrain", PRETRAIN + "--config.source={tmp}/gone.hdf5", "gone.hdf5' is neither one of"),
    (
        "pretrain",
        PRETRAIN + "--config.source={tmp}/hopper.hdf5",
        "cannot be read as HDF5",
        cut_data,
    ),
    ("pretrain", PRETRAIN.replace("hopper", "walker2d"), "has 3 dimensions but Walker2d-v4 has 6"),
    ("pretrain", MINE, "is neither one of"),
    ("pretrain", MINE, "rewards holds 1 NaN", mine(rewards=with_nan())),
    ("pretrain", MINE, "shape", mine(rewards=np.zeros((59, 1)))),
    (
        "pretrain",
        MINE,
        "100% of the action .*clip_actions=True",
        mine(actions=np.full((60, 2), 9.0), action_low=-1, action_high=1),
    ),
    (
        "pretrain",
        MINE,
        "discrete actions are not modelled",
        mine(actions=np.arange(120).reshape(60, 2) % 5),
    ),
    ("pretrain", MINE, "range from", mine(actions=np.full((60, 2), 9.5))),
    ("pretrain", MINE, "max_episode_steps is 1e.300; it must be", mine(max_episode_steps=1e300)),
    ("pretrain", MINE, "largest reward is 1e-40, too small", mine(rewards=np.full(60, 1e-40))),
    ("pretrain", MINE, "row 3 ends an episode by dones but", mine(dones=np.arange(60) == 3)),
    ("pretrain", MINE, "rows must be consecutive", mine(next_observations=np.zeros((60, 4)))),
    ("pretrain", MINE, "cannot be read as npz", declares_rows),
    ("pretrain", MINE, "mine.npz is a named pipe", pipe("mine.npz")),
    (
        "pretrain",
        PRETRAIN.replace("hopper-medium", "Hopper-v3"),
        "asks for version 3 of hopper.*Hopper-v5 or Hopper-v4",
    ),
    ("pretrain", MINE, "lengths sum to 21 steps", mine(lengths=[1, 20])),
    ("pretrain", MINE, "which is never loaded", mine(actions=np.array([{}] * 60))),
    ("pretrain", MINE + "--config.model.window=21", "has 1 episode of 60", mine(lengths=[60])),
    ("pretrain", MINE, "cannot be read as npz", text("mine.npz", "PK\x03\x04")),
    ("pretrain", PRETRAIN + "--config.source={tmp}/empty", "no Minari", text("empty/a.txt", "")),
    # Folders of a pretraining.
    ("pretrain", PRETRAIN, "out is a file", text("out", "")),
    ("pretrain", PRETRAIN, "is not empty and holds no run", text("out/notes.txt", "")),
    ("pretrain", PRETRAIN + "--config.out={run}", "different run: .*steps is 30 there and 31 here"),
    ("pretrain", PRETRAIN + "--config.out={run}", "is damaged", text("run/config.json", "{")),
    ("pretrain", PRETRAIN + "--config.out={run}", "holds a list", text("run/config.json", "[]")),
    ("pretrain", PRETRAIN + "--config.debug_batch={tmp}/gone.npz", "gone.npz cannot be read"),
    ("pretrain", PRETRAIN + "--config.debug_batch={tmp}/b", "cannot be read", text("b", "PK\3\4")),
    ("pretrain", PRETRAIN + "--config.debug_batch={tmp}/b", "cannot be read", text("b", "")),
    ("pretrain", PRETRAIN + "--config.debug_batch={tmp}/mine.npz", "another model", mine()),
    # Critics.
    ("critic", "", "no run was named"),
    ("critic", "--config.run={tmp}/gone", "there is no pretraining run in"),
    ("critic", "--config=configs/critic.py:hopper-medium", "make it with: python -m exp"),
    ("critic", "--config=configs/critic.py:ant-medium", "unknown environment 'ant'"),
    ("critic", "--config.run={run} --config.critic.steps=-1", "critic.steps is -1"),
    ("critic", "--config.run={run} --config.critic.expectile=1.5", "expectile is 1.5"),
    ("critic", "--config.run={run} --config.critic.discount=nan", "discount is nan"),
    ("critic", "--config.run={run} --config.critic.hidden=(0,)", r"hidden is \(0,\)"),
    ("critic", "--config.run={run} --config.critic.hidden=wide", r"hidden is \('wide',\)"),
    ("critic", "--config.run={run}", "holds a run of None", text("run/config.json", "{}")),
    ("critic", "--config.run={run}", "lacks seed", a_config(lambda c: c.pop("seed"))),
    (
        "critic",
        "--config.run={run}",
        "'gone' is neither one of",
        a_config(lambda c: c.update(source="gone")),
    ),
    (
        "critic",
        "--config.run={run}",
        "run/critic cannot be read or written",
        text("run/critic", ""),
    ),
    # Evaluations.
    ("evaluate", "", "no run was named"),
    ("evaluate", "--config.run={tmp}/gone", "no run in .*gone"),
    ("evaluate", "--config.run={run} --config.eval.episodes=0", "eval.episodes is 0"),
    ("evaluate", "--config.run={run} --config.eval.target_fraction=inf", "target_fraction is inf"),
    ("evaluate", "--config.run={run}", "does not have a checkpoint", no_checkpoint),
    ("evaluate", "--config.run={run}", "checkpoints/1 cannot be read", cut_arrays),
    (
        "evaluate",
        "--config.run={run}",
        "checkpoints/1 cannot be read",
        text("run/checkpoints/1/meta/metadata", "{"),
    ),
    ("evaluate", "--config.run={run}", "not those of a pretrained model", another_program),
    ("evaluate", "--config.run={run}", "holds no run", lambda t: (t / "run/config.json").unlink()),
    ("evaluate", "--config.run={run}", "lacks preset", a_config(lambda c: c.pop("preset"))),
    (
        "m3pc_offline",
        "--config.eval.methods=('m3pc',)",
        "choose among bc, rcbc, m3pc_0, m3pc_m, m3pc_v, m3pc_q",
    ),
    ("m3pc_offline", "--config.plan.candidates=0", "plan candidates is 0"),
    ("m3pc_offline", "--config.m3pc_m.readout=rq", "readout is 'rq'; choose fd or rp"),
    ("m3pc_offline", "--config.imagined_steps=-1", "imagined_steps is -1"),
    ("m3pc_offline", "--config.run={run}", "this run has no critic"),
    (
        "m3pc_offline",
        "--config.run={run} --config.eval.methods=('m3pc_m',) --config.plan.horizon=9",
        "need a window of",
    ),
    (
        "m3pc_offline",
        "--config.run={run} --config.eval.methods=('bc',) --config.world={tmp}/gone",
        "no run in",
    ),
    ("ablation", "--config.study=depth", "plans have no setting 'depth'"),
    ("ablation", "--config.choices=('many',)", "horizon 'many' is of type str"),
    ("ablation", "--config.choices=(1.5,)", "horizon 1.5 is of type float"),
    ("ablation", "--config.methods=('bc',)", "'bc' does not plan"),
    ("ablation", "--config.eval.seed=-1", "eval.seed is -1"),
    ("plan_signal", "", "no run was named"),
    ("plan_signal", "--config.run={run} --config.windows=0", "windows is 0"),
    ("plan_signal", "--config.run={run} --config.seed=-1", "seed is -1"),
    ("plan_signal", "--config.run={run} --config.only=('fast',)", r"unknown ways \['fast'\]"),
    ("plan_signal", "--config.run={run} --config.moments=0", "0 moments from step"),
    # Reports.
    ("sweep", "--config.executor=condor", "executor is 'condor'"),
    ("sweep", "--config.hours=0.0", "hours is 0.0"),
    ("sweep", "--config.overrides=('steps',)", "overrides are"),
    ("report", "", "no results were named"),
    (
        "report",
        "--config.studies=True --config.results={tmp}/r.jsonl",
        "no row is from experiments.ablation",
        rows(ROW),
    ),
    ("report", "--config.results={tmp}/gone", "there is no file"),
    ("report", "--config.results={tmp}/a", "holds no rows of results", text("a/b.txt", "")),
    ("report", "--config.results={tmp}/r.jsonl", "line 1 is damaged", text("r.jsonl", "{'a'\n")),
    ("report", "--config.results={tmp}/r.jsonl", "damaged", text("r.jsonl", "[" * 9999 + "\n")),
    ("report", "--config.results={tmp}/r.jsonl", "it holds a list", rows([1])),
    ("report", "--config.results={tmp}/r.jsonl", "whose seed", rows(ROW | {"seed": None})),
    (
        "report",
        "--config.results={tmp}/r.jsonl",
        "whose norm",
        rows(ROW | {"normalized_scores": []}),
    ),
    (
        "report",
        "--config.results={tmp}/r.jsonl",
        "normalized_scores cannot be used",
        rows(ROW | {"normalized_scores": [float("nan")]}),
    ),
    (
        "report",
        "--config.results={tmp}/r.jsonl --config.figure=x.jpg",
        "not end in .png",
        rows(ROW),
    ),
    (
        "pretrain",
        "--config=configs/pretrain.py:Hopper-v4-medium",
        "asks for Hopper-v4, but the built-in data",
    ),
    # Data.
    ("data", "lists", "unknown action 'lists'.*did you mean list"),
    ("data", "list --config.source=web", "unknown source 'web'"),
    ("data", "inspect", "inspect needs SOURCE"),
    ("data", "inspect hopper-novice", "unknown level 'novice'"),
    ("data", "inspect {tmp}/gone.npz", "there is no file or folder"),
    (
        "data",
        "inspect {tmp}/mine.npz",
        "lacks observations, actions",
        lambda t: np.savez(t / "mine.npz", a=1),
    ),
    ("data", "inspect {tmp}/x.hdf5 --config.name=hopper", "x.hdf5 is a named pipe", pipe("x.hdf5")),
    (
        "data",
        "inspect {tmp}/hopper.hdf5",
        "rewards is stored in another file",
        linked("rewards", "hopper.hdf5"),
    ),
    (
        "data",
        "inspect {tmp}/lift.hdf5",
        "mask/train is stored in another",
        linked("mask/train", "lift.hdf5", env_args="{}"),
    ),
    (
        "data",
        "inspect {tmp}/lift.hdf5",
        "env_args of data is '5.0', which names no",
        linked("", "lift.hdf5", env_args=5.0),
    ),
    (
        "data",
        "inspect {tmp}/lift.hdf5",
        "actions are absolute poses",
        linked("", "lift.hdf5", env_args=ABSOLUTE),
    ),
    (
        "data",
        "inspect {tmp}/x",
        "with frame_skip=8 where Hopper-v5 has 4",
        recorded(kwargs={"frame_skip": 8}),
    ),
    ("data", "inspect {tmp}/x", "max_episode_steps is 1e.300", recorded(max_episode_steps=1e300)),
    (
        "data",
        "inspect {tmp}/x --config.name=Hopper-v4-x",
        "asks for Hopper-v4; name Hopper-v5",
        recorded(),
    ),
    ("data", "inspect {tmp}/walker_run.zip", "is a link or points outside", escaping),
    ("data", "inspect {tmp}/a --config.name=walker_run", "no Minari", text("a/data/x", "")),
    (
        "data",
        "inspect {tmp}/a --config.name=hopper-medium",
        "metadata of a Minari data set cannot be read",
        text("a/data/metadata.json", "{"),
    ),
    ("data", "inspect {data} --config.name=hopper-medium --config.figure=x.jpg", "not end in .png"),
    ("data", "collect ant", "unknown environment 'ant'"),
    ("data", "collect hopper-medium --config.workers=-1", "workers is -1"),
    ("data", "collect hopper-medium --config.steps=-5", "-5 steps is too small"),
    ("data", "collect hopper-medium --config.seed=-5", "seed of hopper-medium is -5"),
    ("data", "collect hopper-medium --config.figure=x.jpg", "not end in .png"),
    ("data", "collect hopper-medium --config.actors={tmp}/gone", "no behaviour actors of hopper"),
    ("data", "convert {data} hopper", "'hopper' is no Minari id"),
    (
        "data",
        "convert {data} mine/x-v0 --config.name=hopper-medium --config.root={data}",
        "cannot write to the data folder",
    ),
    ("data", "download hopper-medium", "cannot be downloaded"),
    ("data", "download minari:../../x", "is not the id of a Minari data set"),
    ("data", "download d4rl:hopper-novice", "there is no D4RL file for 'hopper-novice'"),
    # The behaviour policies.
    ("behaviours", "--config=configs/behaviours.py:ant", "unknown ladder 'ant'"),
    ("behaviours", "--config.env=ant", "unknown environment 'ant'"),
    ("behaviours", "--config.reward=fame", "unknown reward 'fame'"),
    ("behaviours", "--config.seed=-1", "seed is -1"),
    ("behaviours", "--config.sac.batch_size=0", "batch_size is 0"),
    ("behaviours", "--config.sac.hidden=(8,)", r"sac.hidden is \(8,\)"),
    ("behaviours", "--config.updates_per_step=nan", "updates_per_step is nan"),
    ("behaviours", "--config.replay_capacity=1", "replay_capacity is 1"),
    ("behaviours", "--config.out={tmp}/out", "out is a file", text("out", "")),
    ("ladder", "--config=configs/ladder.py:ant", "unknown ladder 'ant'"),
    ("ladder", "--config.run={tmp}/gone", "no actors in"),
    ("ladder", "--config.rungs=0", "rungs is 0"),
    ("ladder", "--config.run={tmp}", "cannot be read", text("actors/actor_00000001.npz", "PK\3\4")),
    ("ladder", "--config.run={tmp}", "maps 17 inputs to 6 outputs, but hopper", actor(17)),
    ("coverage", "--config.steps=0", "steps is 0"),
    ("coverage", "--config.num_envs=0", "num_envs is 0"),
    ("coverage", "--config.actors={tmp}/gone", "no behaviour actors of walker_run"),
    ("coverage", "--config.actors={tmp}", "is not JSON", text("ladder.json", "{")),
    # The rest.
    ("bench", "--config.widths=(0,)", r"widths are \(0,\)"),
    ("bench", "--config.widths=('wide',)", "must be of type tuple"),
    ("bench", "--config.longest=nan", "longest is nan"),
    ("bench", "--config.plan.candidates=0", "candidates is 0"),
    ("bench", "--config.sections=('all',)", "choose among presets, seeds"),
    ("bench", "--config.stored={tmp}/gone", "gone holds no results of this program"),
    ("bench", "--config.stored={tmp}/x", "an earlier version", text("x", '{"rows": [{}]}')),
    ("bench", "--config.figure=x.jpg", "does not end in .png"),
    ("mask_figure", "--config.slot=9", "slot 9 is not in a window"),
    ("mask_figure", "--config.out=x.gif", "does not end in .png"),
    ("mask_figure", "--config.out={tmp}/x.png", "Is a directory", text("x.png/a", "")),
    ("mask_figure", "--config.out={tmp}/a/x.png", "no figure can be written to", text("a", "")),
    ("import_checkpoint", "", "FILE.pt OUT"),
    ("import_checkpoint", "{tmp}/gone.pt {tmp}/out", "no checkpoint file", fake_torch),
    ("import_checkpoint", "{tmp}/model.pt {tmp}/out", "is not a PyTorch file", fake_torch),
]


def start(program, argv):
    module = importlib.import_module(f"experiments.{program}")
    if hasattr(module, "__path__"):  # a folder
        module = importlib.import_module(f"experiments.{program}.__main__")
    if program == "import_checkpoint":
        argv = module.spell_out(argv)
    extra = {"spell_out": module.spell_out} if program == "data" else {}
    cli.run(module.main, argv=argv, **extra)


@pytest.mark.parametrize(
    ("program", "argv", "says", "prepare"),
    [pytest.param(*(*case, None)[:4], id=f"{n}-{case[0]}") for n, case in enumerate(CASES)],
)
def test_bad_input_ends_in_one_sentence(
    program, argv, says, prepare, drawn_run, hopper_file, tmp_path, monkeypatch, capsys
):
    if prepare is fake_torch:
        monkeypatch.setitem(sys.modules, "torch", None)  # put back at the end
    monkeypatch.setattr(collector, "collect", lambda *_, **__: pytest.fail("refused too late"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(hopper_file, tmp_path / "data.hdf5")
    if "{run}" in argv:
        shutil.copytree(drawn_run, tmp_path / "run")
    if prepare:
        prepare(tmp_path)
    places = {"tmp": tmp_path, "run": tmp_path / "run", "data": tmp_path / "data.hdf5"}
    with pytest.raises(SystemExit) as stop:
        start(program, [word.format(**places) for word in argv.split()])
    said = capsys.readouterr().err
    assert stop.value.code == failures.REFUSED, said
    *before, last = said.splitlines()
    assert last.startswith("error: ") and re.search(says, last), said
    assert not re.search("Traceback|error: ", "".join(before)), said
