"""The arena: what remains, the table, and what is refused."""

import json

import numpy as np
import pytest

from configs import arena as page
from experiments.arena import __main__ as arena
from experiments.arena import entries, jobs, standings
from experiments.runtime import cli
from mtm_jax.errors import UserError
from mtm_jax.io import records

NAMES = ("hopper-medium", "walker2d-medium")


def settings(tmp_path, **changes):
    given = {
        "out": tmp_path / "arena",
        "names": NAMES,
        "actings": ("bc", "rcbc"),
        "seeds": 3,
        "episodes": 4,
    }
    flags = [f"--config.{k}={v}" for k, v in (given | changes).items()]
    return cli.parse(flags, "configs/arena.py")


def row(name, acting, seed, scores, recipe="default", eval_seed=1000):
    return {
        "dataset": name,
        "seed": seed,
        "normalized_scores": list(scores),
        "settings": {"recipe": recipe, "acting": acting, "eval_seed": eval_seed},
    }


def write(config, rows, recipe="default"):
    for name in config.names:
        path = entries.runs_folder(config, recipe, name) / "results.jsonl"
        for each in rows:
            if each["dataset"] == name:
                records.append(path, each)


def test_what_remains_is_what_lacks_a_seed_or_episodes(tmp_path):
    config = settings(tmp_path)
    everything = jobs.remaining(config)
    assert [(j.name, j.actings) for j in everything] == [(n, ("bc", "rcbc")) for n in NAMES]
    rows = [row(NAMES[0], a, s, np.zeros(4)) for a in ("bc", "rcbc") for s in range(3)]
    rows += [row(NAMES[1], "bc", s, np.zeros(4)) for s in range(2)]
    rows += [row(NAMES[1], "rcbc", s, np.zeros(3)) for s in range(3)]  # fewer episodes
    rows += [row(NAMES[1], "bc", 2, np.zeros(4), eval_seed=5)]
    write(config, rows)
    assert jobs.remaining(config) == [jobs.Job("default", NAMES[1], ("bc", "rcbc"))]


def test_differences_are_paired_by_seed_and_episode(tmp_path):
    config, rng = settings(tmp_path, seeds=5, episodes=20), np.random.default_rng(0)
    rows = []
    for seed in range(5):
        for name in NAMES:
            noise = 10 * seed + 30 * rng.standard_normal(20)  # the same for both
            rows += [row(name, "bc", seed, noise), row(name, "rcbc", seed, noise + 2.0)]
    scores = standings.collect(rows, config)
    text = standings.difference(scores["default", "rcbc"], scores["default", "bc"])
    assert text == "+4.0 [+4.0, +4.0]"
    own = list(scores["default", "bc"].values())
    total = standings.total(own)
    assert total.high - total.low > 20
    assert total.mean == pytest.approx(sum(np.mean(part) for part in own))
    sums = sum(part.mean(1) for part in own)
    assert standings.spread(own) == pytest.approx(np.std(sums, ddof=1))


def test_a_data_set_without_all_seeds_is_left_out(tmp_path):
    config = settings(tmp_path)
    rows = [row(NAMES[0], "bc", s, np.ones(4)) for s in range(3)]
    rows += [row(NAMES[1], "bc", s, np.ones(4)) for s in range(2)]
    found = standings.collect(rows, config)["default", "bc"]
    assert list(found) == [NAMES[0]] and found[NAMES[0]].shape == (3, 4)
    assert standings.table({("default", "bc"): found}, config).row_count == 1


@pytest.mark.parametrize("recipe", sorted(page.RECIPES))
def test_every_recipe_is_a_pretraining(tmp_path, recipe):
    config = settings(tmp_path, seeds=2)
    run = entries.pretraining(config, recipe, "hopper-medium")
    assert (run.seeds, run.env, run.preset) == (2, "hopper-medium", "small")
    alone = entries.pretraining(settings(tmp_path, seeds=1, seed=4), recipe, "hopper-medium")
    assert alone.out.endswith(f"{recipe}/hopper-medium/seed4")


@pytest.mark.parametrize("name", sorted(page.ACTINGS))
def test_every_acting_is_a_method_with_its_settings(tmp_path, name):
    acting = entries.acting(settings(tmp_path), name)
    assert (acting.config.eval.episodes, acting.config.plan.candidates) == (4, 64)
    assert acting.against in {"", *page.ACTINGS}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipes": ("fast",)}, "unknown recipe 'fast'; choose among default"),
        ({"actings": ("luck",)}, "unknown acting 'luck'"),
        ({"names": ("hopper-medum",)}, "hopper-medum"),
        ({"names": ()}, r"names are \(\); name at least one"),
        ({"actings": ("bc", "bc")}, "each once"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        arena.check(settings(tmp_path, **changes))


def test_a_recipe_that_names_an_unknown_key_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(page.RECIPES, "typo", {"model.widht": 128})
    with pytest.raises(UserError, match=r"recipe typo: unknown key --config.model.widht"):
        arena.check(settings(tmp_path, recipes=("typo",)))


def test_a_folder_keeps_to_its_recipes(tmp_path, monkeypatch):
    config = settings(tmp_path)
    entries.settle(config)
    entries.settle(config)
    monkeypatch.setitem(page.RECIPES, "other", {"steps": 10})
    more = settings(tmp_path, recipes=("other",))
    entries.settle(more)
    index = json.loads((tmp_path / "arena" / "arena.json").read_text())
    assert index["recipes"] == {"default": {}, "other": {"steps": 10}}
    monkeypatch.setitem(page.RECIPES, "other", {"steps": 20})
    with pytest.raises(UserError, match=r"another recipe other: .*10.*20"):
        entries.settle(more)
    with pytest.raises(UserError, match="preset 'small', and 'base' was asked for"):
        entries.settle(settings(tmp_path, preset="base"))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "arena").mkdir()
    (tmp_path / "arena" / "notes").write_text("mine")
    with pytest.raises(UserError, match="holds no arena"):
        entries.settle(settings(tmp_path))


def test_a_job_as_a_process_is_given_the_same_settings(tmp_path):
    config = settings(tmp_path, parallel=4, steps=7)
    job = jobs.Job("default", NAMES[1], ("rcbc",))
    given = cli.parse(list(jobs.arguments(config, job)), "configs/arena.py")
    assert (given.recipes, given.names, given.actings) == (("default",), NAMES[1:], ("rcbc",))
    assert (given.parallel, given.steps, given.episodes, given.out) == (1, 7, 4, config.out)


def test_rows_of_a_file_are_tabulated_and_nothing_is_made(tmp_path, capsys):
    rows = [row(n, "bc", s, np.full(4, 21.0)) for n in NAMES for s in range(3)]
    for each in rows:
        records.append(tmp_path / "rows.jsonl", each)
    config = settings(tmp_path, results=tmp_path / "rows.jsonl", actings=("bc",))
    arena.main(config)
    assert "42.0 [42.0, 42.0]" in capsys.readouterr().out
    assert not (tmp_path / "arena").exists()
