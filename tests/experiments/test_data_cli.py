"""`python -m experiments.data`: its words, its help, and what each action leaves behind."""

import dataclasses
import json
import logging
import subprocess
import sys

import numpy as np
import pytest

from configs import data as data_config
from experiments.data import __main__ as data
from experiments.data import collect as data_collect
from experiments.data import convert as data_convert
from experiments.runtime import cli, machine
from mtm_jax.data import catalogue, sources
from mtm_jax.data import info as data_info
from mtm_jax.data.builtin import behaviours, collector
from mtm_jax.data.d4rl import files as d4rl_files
from mtm_jax.data.minari import download as minari_download
from mtm_jax.data.minari import reader as minari
from mtm_jax.data.minari import writer as minari_writer
from mtm_jax.envs import registry
from mtm_jax.io import records
from mtm_jax.plots import data_sets
from mtm_jax.types import Trajectories

pytestmark = pytest.mark.usefixtures("clean_logging")


@pytest.fixture(autouse=True)
def home(empty_home, monkeypatch):
    monkeypatch.chdir(empty_home)
    return empty_home


def run(*argv):
    cli.run(data.main, data.explain, argv=argv, spell_out=data.spell_out)


def error_of(capsys, *argv):
    """Run, expect exit code 2, and return the one sentence on stderr."""
    with pytest.raises(SystemExit) as exit_:
        run(*argv)
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def make(name="hopper-medium", count=10, **changes):
    """Episodes of 10 steps in the environment of a built-in data set."""
    spec, _ = registry.parse_name(name)
    rng, rows = np.random.default_rng(0), 10 * count
    trajectories = Trajectories(
        observations=rng.normal(size=(rows, spec.obs_dim)).astype(np.float32),
        actions=rng.uniform(-1, 1, (rows, spec.action_dim)).astype(np.float32),
        rewards=rng.normal(size=rows).astype(np.float32),
        terminals=np.zeros(rows, bool),
        lengths=np.full(count, 10),
        final_observations=rng.normal(size=(count, spec.obs_dim)).astype(np.float32),
        info=data_info.of_env(spec, spec.builtin_id, name, "builtin"),
    )
    return dataclasses.replace(trajectories, **changes)


# --- words and help ---


def test_words_are_sugar_for_keys():
    assert data.spell_out(["convert", "a.hdf5", "--config.seed", "3", "x-v0"]) == [
        *("--config=configs/data.py:convert", "--config.source=a.hdf5", "--config.dataset_id=x-v0"),
        *("--config.seed", "3"),
    ]
    spelled = ["--config=configs/data.py:inspect", "--config.source=x"]
    assert data.spell_out(spelled) == spelled
    assert data.spell_out(["--config", "configs/data.py", "--debug"]) == [
        *("--config", "configs/data.py", "--debug")
    ]


@pytest.mark.parametrize("action", data.ACTIONS)
def test_every_action_has_keys_for_its_words_and_help_for_its_keys(action, capsys):
    config = data_config.get_config(action)
    assert {"action", *data.ACTIONS[action].words} <= set(config)
    run(action, "--help")
    out = capsys.readouterr().out
    assert f"usage: {data.usage(action)} " in out
    keys = out.partition("keys:\n")[2].partition("\n\n")[0].splitlines()
    assert {line.split("=")[0].strip() for line in keys} == {
        f"--config.{key}" for key in config if key != "action"
    }
    assert all(len(line.split(maxsplit=1)) == 2 for line in keys), keys


def test_the_help_lists_every_action(capsys):
    run("--help")
    out = capsys.readouterr().out
    for name, action in data.ACTIONS.items():
        assert data.usage(name).removeprefix("python -m experiments.data") in out
        assert action.about in out and action.example in out
    assert list(data.ACTIONS) == list(data_config.ACTIONS)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["inspct", "x"], ("unknown action 'inspct'", "list, inspect", "did you mean inspect?")),
        (["inspect"], ("inspect needs SOURCE", "experiments.data inspect hopper-medium")),
        (["convert", "hopper-medium"], ("convert needs DATASET_ID",)),
        (["inspect", "a", "b"], ("unexpected argument 'b'", "data inspect SOURCE")),
        (["list", "builtin"], ("unexpected argument 'builtin'",)),
        (["inspect", "a", "--config.sauce=b"], ("--config.sauce", "--config.source")),
        (["inspect", "a", "--config.workers=2"], ("unknown key --config.workers",)),
        (["--config.action=list"], ("--config=configs/data.py:ACTION",)),
        (["--config=configs/data.py:no"], ("unknown action 'no'", "list, inspect")),
        (["list", "--config.source=x"], ("unknown source 'x'", "builtin, d4rl, minari")),
        (["inspect", "no/such.hdf5"], ("no/such.hdf5",)),
        (["inspect", "hopper-novice"], ("unknown level 'novice'",)),
        (["inspect", "d4rl:hopper-medium", "--config.name=x"], ("leave out --config.name=x",)),
        (["collect", "ant"], ("unknown environment 'ant'",)),
        (["collect", "all", "--config.actors=x"], ("of one environment",)),
        (["collect", "hopper-medium", "--config.results=/"], ("/ cannot be written",)),
        (["convert", "hopper-medium", "../x-v0"], ("'../x-v0' is no Minari id",)),
        (["convert", "hopper-medium", "mine/x"], ("a version at the end",)),
        (["download", "hopper-medium"], ("cannot be downloaded", "experiments.data collect NAME")),
    ],
)
def test_mistakes_end_in_one_sentence(capsys, argv, parts, monkeypatch):
    monkeypatch.setattr(catalogue, "builtin_names", lambda: ["hopper-medium", "walker2d-medium"])
    monkeypatch.setattr(data_collect, "_has_actors", lambda name: True)
    monkeypatch.setattr(collector, "collect", lambda *_: pytest.fail("refused too late"))
    message = error_of(capsys, *argv)
    for part in parts:
        assert part in message


def test_listing_starts_neither_jax_nor_a_simulator(root):
    code = (
        "import sys; from experiments.data import __main__ as data;"
        "from experiments.runtime import cli;"
        "cli.run(data.main, argv=['list'], spell_out=data.spell_out);"
        "print({'jax', 'mujoco', 'matplotlib'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "set()"


# --- list ---


def test_a_reader_that_has_had_enough_ends_the_program_quietly(root):
    command = [sys.executable, "-m", "experiments.data", "list"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=root, text=True, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_the_table_names_what_is_here(home, capsys):
    folder = behaviours.folder("hopper-medium", 100, 2)
    minari_writer.write(make(), f"mtm_jax/{folder.name}", home / "cache/minari")
    run("list", "--config.source=builtin")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "hopper-expert builtin Hopper-v5 1,000,000 ~62 -" in lines
    assert f"hopper-medium, seed 2 builtin Hopper-v5 100 0.0 {folder}" in lines
    assert not any("d4rl" in line for line in lines)


# --- inspect ---


def test_the_report_says_what_is_in_a_file_and_what_was_logged(home, hopper_file, capsys):
    run("inspect", str(hopper_file))
    captured = capsys.readouterr()
    lines = [" ".join(line.split()) for line in captured.out.splitlines()]
    found = sources.load("", str(hopper_file))
    assert f"steps {len(found.rewards)}" in lines and "episodes 12" in lines
    assert f"observations float32 [{len(found.rewards)}, 11]" in lines
    assert any(line.startswith("note: the observation after the last step") for line in lines)
    assert "figure: runs/data/hopper_medium.png" in lines
    assert (home / "runs/data/hopper_medium.png").read_bytes().startswith(b"\x89PNG")
    assert captured.err == ""


def test_what_is_logged_is_in_the_report_only(home, hopper_file, capsys, monkeypatch):
    def load(*_, **__):
        logging.getLogger("mtm_jax").warning("clipped %d of them", 3)
        return make()

    monkeypatch.setattr(sources, "load", load)
    run("inspect", str(hopper_file), "--config.figure=")
    captured = capsys.readouterr()
    assert "note: clipped 3 of them" in captured.out and captured.err == ""
    assert list(home.rglob("*.png")) == []


def test_what_was_logged_before_an_error_is_said(hopper_file, capsys, monkeypatch):
    def load(*_, **__):
        logging.getLogger("mtm_jax").warning("clipped %d of them", 3)
        raise KeyError("a bug")

    monkeypatch.setattr(sources, "load", load)
    with pytest.raises(SystemExit):
        run("inspect", str(hopper_file))
    assert "clipped 3 of them" in capsys.readouterr().err


def test_figures_of_different_data_have_different_names(home, monkeypatch):
    drawn = []
    monkeypatch.setattr(sources, "load", lambda *_, **__: make())
    monkeypatch.setattr(data_sets, "histograms", lambda _, path: drawn.append(path))
    (home / "mine").mkdir()
    for source in ("hopper-medium", "d4rl:hopper-medium", "minari:mujoco/hopper/medium-v0", "mine"):
        run("inspect", source)
    run("inspect", "hopper-medium", "--config.steps=200", "--config.seed=1")
    stems = ["hopper-medium", "d4rl-hopper-medium", "minari-mujoco-hopper-medium-v0", "mine"]
    assert drawn == [f"runs/data/{stem}.png" for stem in (*stems, "hopper-medium-200-seed1")]


def test_data_without_returns_are_reported(hopper_file, capsys, monkeypatch):
    lacking = dict.fromkeys(("rewards", "returns"), np.zeros(10, bool))
    monkeypatch.setattr(sources, "load", lambda *_, **__: make(available=lacking))
    run("inspect", str(hopper_file), "--config.figure=")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "returns -" in lines
    assert "episodes that have states 100%, returns 0%, actions 100%, rewards 0%" in lines


# --- convert ---


def test_what_is_converted_reads_back_the_same(home, hopper_file, capsys):
    run("convert", str(hopper_file), "mine/hopper/medium-v0")
    assert "load it with the source minari:mine/hopper/medium-v0" in (
        capsys.readouterr().out.replace("\n", " ")
    )
    found = sources.load("", "minari:mine/hopper/medium-v0")
    given = sources.load("", str(hopper_file))
    for name in ("observations", "actions", "rewards", "terminals", "lengths"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
    assert found.info.env_id == given.info.env_id == "Hopper-v4"


def test_unknown_final_observations_repeat_the_last_one_and_are_said_to(home, hopper_file, capsys):
    run("convert", str(hopper_file), "mine/hopper-v0", f"--config.root={home / 'root'}")
    assert "12 of 12 episodes lack" in capsys.readouterr().err
    folder = home / "root" / "mine/hopper-v0"
    found = minari.read(folder)
    last = found.observations[np.cumsum(found.lengths) - 1]
    np.testing.assert_array_equal(found.final_observations, last)
    said = json.loads((folder / "data/metadata.json").read_text())["mtm_jax_converted"]
    assert said["final_observations_repeated"] == 12 and said["source"] == str(hopper_file)


def test_known_final_observations_stay():
    final = make().final_observations
    final[3] = np.nan
    given = make(final_observations=final)
    filled, repeated = data_convert.repeat_last(given)
    assert repeated == 1
    np.testing.assert_array_equal(filled.final_observations[3], given.observations[39])
    keep = np.arange(10) != 3
    np.testing.assert_array_equal(filled.final_observations[keep], final[keep])


def test_nothing_is_overwritten(home, hopper_file, capsys, monkeypatch):
    run("convert", str(hopper_file), "mine/hopper-v0")
    before = [path.stat().st_mtime_ns for path in sorted(home.rglob("*"))]
    capsys.readouterr()
    monkeypatch.setattr(sources, "load", lambda *_, **__: pytest.fail("refused too late"))
    assert "already; choose another id" in error_of(
        capsys, "convert", str(hopper_file), "mine/hopper-v0"
    )
    assert [path.stat().st_mtime_ns for path in sorted(home.rglob("*"))] == before


def test_what_minari_cannot_say_is_refused_or_kept_in_the_metadata(
    home, hopper_file, capsys, monkeypatch
):
    has = np.arange(10) < 7
    monkeypatch.setattr(sources, "load", lambda *_, **__: make(available={"actions": has}))
    message = error_of(capsys, "convert", str(hopper_file), "mine/hopper-v0")
    assert "3 of 10 episodes of hopper-medium have no actions" in message
    assert not (home / "cache").exists()
    monkeypatch.setattr(sources, "load", lambda *_, **__: make(train=has))
    run("convert", str(hopper_file), "mine/hopper-v0")
    metadata = minari.read_metadata(home / "cache/minari/mine/hopper-v0")
    assert metadata["mtm_jax_converted"]["train_episodes"] == list(range(7))
    assert "the split of the data" in capsys.readouterr().err


def test_an_id_that_does_not_tell_the_environment_is_said_to(hopper_file, capsys, monkeypatch):
    nowhere = dataclasses.replace(make().info, env_id="")
    monkeypatch.setattr(sources, "load", lambda *_, **__: make(info=nowhere))
    run("convert", str(hopper_file), "mine/x-v0")
    assert "the name hopper-medium" in capsys.readouterr().out


# --- collect ---


@pytest.fixture
def stand_in(monkeypatch):
    """Collect by making trajectories; like the original, only what is not there yet."""

    def load(name, steps=None, seed=0, actors=None, workers=None):
        env, _, level = name.partition("-")
        folder = behaviours.folder(name, steps, seed)
        if level == "medium-expert" and not folder.exists():
            for half in ("medium", "expert"):
                load(f"{env}-{half}", steps // 2, seed)
        folder.mkdir(parents=True, exist_ok=True)
        return make(name)

    monkeypatch.setattr(behaviours, "load", load)
    monkeypatch.setattr(
        machine, "simulation_rate", lambda env_id, *_: {"Hopper-v5": 9000.0}.get(env_id)
    )
    monkeypatch.setattr(data_collect, "_has_actors", lambda name: not name.startswith("walker"))


def collected(path):
    return {row["name"]: row for row in records.read_jsonl(path)}


def test_one_data_set_is_summarised(stand_in, capsys):
    run("collect", "hopper-medium", "--config.steps=100")
    out = capsys.readouterr().out
    assert "hopper-medium (Hopper-v5)" in out and "normalised score" in out
    assert str(behaviours.folder("hopper-medium", 100, 0)) in out.replace("\n", "")


def test_a_row_of_results_says_what_was_collected(stand_in, home):
    argv = ("collect", "hopper-medium", "--config.steps=100", "--config.results=new/rows.jsonl")
    run(*argv)
    run(*argv)
    first, second = records.read_jsonl(home / "new/rows.jsonl")
    returns = make().episode_returns
    assert (first["name"], first["env_id"]) == ("hopper-medium", "Hopper-v5")
    assert (first["steps"], first["episodes"], first["seed"]) == (100, 10, 0)
    assert first["mean_return"] == pytest.approx(returns.mean())
    assert (first["min_return"], first["max_return"]) == (returns.min(), returns.max())
    scores = registry.normalized_score(registry.ENVS["hopper"], returns)
    assert first["mean_score"] == pytest.approx(scores.mean())
    assert first["steps_per_second"] == pytest.approx(100 / first["seconds"])
    assert first["simulation_steps_per_second"] == 9000.0
    assert second["steps_per_second"] is second["simulation_steps_per_second"] is None
    assert first["versions"]["mujoco"] and first["versions"]["gymnasium"]


def test_an_environment_is_all_of_its_levels(stand_in, home, capsys):
    run("collect", "hopper", "--config.steps=100", "--config.results=rows", "--config.figure=x.png")
    rows = collected(home / "rows")
    assert sorted(rows) == sorted(f"hopper-{level}" for level in registry.LEVELS)
    out = capsys.readouterr().out
    assert all(name in out for name in rows)
    assert (home / "x.png").read_bytes().startswith(b"\x89PNG")


def test_all_leaves_out_what_has_no_actors(stand_in, home, capsys):
    run("collect", "all", "--config.steps=100", "--config.results=rows")
    assert {name.partition("-")[0] for name in collected(home / "rows")} == {
        *("hopper", "halfcheetah")
    }
    assert "left out, for want of actors: walker2d-medium" in capsys.readouterr().err


def test_speed_is_of_what_was_collected_now(stand_in, home):
    halves = [behaviours.folder(f"hopper-{half}", 50, 0) for half in ("medium", "expert")]
    argv = ("collect", "hopper-medium-expert", "--config.steps=100", "--config.results=rows")
    run(*argv)
    assert collected(home / "rows")["hopper-medium-expert"]["steps_per_second"] > 0
    behaviours.folder("hopper-medium-expert", 100, 0).rmdir()
    halves[0].rmdir()
    run(*argv)  # one half was there
    assert collected(home / "rows")["hopper-medium-expert"]["steps_per_second"] is None
    for folder in (behaviours.folder("hopper-medium-expert", 100, 0), *halves):
        folder.rmdir()
    halves[0].with_name(f".partial-{halves[0].name}-0123").mkdir()
    run(*argv)  # an interrupted collection was continued
    assert collected(home / "rows")["hopper-medium-expert"]["steps_per_second"] is None


def test_inspect_shows_what_looks_wrong(home, capsys):
    """Ends, resets, actions and names: each is a note of the report."""
    steps = np.arange(2000)
    observations = np.random.default_rng(0).normal(size=(2000, 11))
    arrays = {
        "observations": observations,
        "next_observations": np.roll(observations, -1, axis=0),
        "actions": np.tile(steps[:, None] % 2, 3),
        "rewards": np.ones(2000),
        "terminals": steps % 1000 == 999,
        "done": steps % 1000 == 999,
    }
    np.savez(home / "hopper.npz", **arrays)
    run("inspect", str(home / "hopper.npz"), "--config.figure=")
    out = capsys.readouterr().out
    for said in (
        "not used: done; used are observations",
        "every action is a whole number",
        "all 2 episodes that reach the time limit of 1000 steps are marked as terminal",
        "in 1 of 2 episodes the observation after the last step",
    ):
        assert f": {said}" in out


# --- download ---


def test_downloads_go_to_the_reader_of_their_kind(home, monkeypatch, capsys):
    monkeypatch.setattr(d4rl_files, "locate", lambda name: home / f"{name}.hdf5")
    monkeypatch.setattr(minari_download, "fetch", lambda dataset_id: home / dataset_id)
    run("download", "d4rl:hopper-medium")
    run("download", "minari:mujoco/hopper/medium-v0")
    out = capsys.readouterr().out.replace("\n", "")
    assert f"d4rl:hopper-medium is in {home / 'hopper-medium.hdf5'}" in out
    assert f"is in {home / 'mujoco/hopper/medium-v0'}" in out


def test_minari_data_that_are_here_are_not_downloaded_again(home, monkeypatch, capsys):
    folder = minari_writer.write(make(), "mine/hopper-v0", minari.user_root())
    monkeypatch.setattr(minari_download, "fetch", lambda _: pytest.fail("it is here"))
    run("download", "minari:mine/hopper-v0")
    assert str(folder) in capsys.readouterr().out.replace("\n", "")
