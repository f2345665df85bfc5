"""The studies of MTM: their recipes, one job from end to end, tables, and what is refused."""

import pathlib

import numpy as np
import pytest

from configs import mtm_study as page
from experiments.arena import entries, jobs
from experiments.mtm_study import __main__ as study
from experiments.mtm_study import tables
from experiments.runtime import cli
from mtm_jax.errors import UserError
from mtm_jax.io import records

TINY = {"names": ("hopper-medium",), "steps": 4, "seeds": 2, "episodes": 1}


def settings(tmp_path, **changes):
    flags = [f"--config.{k}={v}" for k, v in ({"out": tmp_path / "study"} | changes).items()]
    return cli.parse(flags, "configs/mtm_study.py")


def complete(tmp_path, **changes):
    config = settings(tmp_path, **changes)
    study.complete(config)
    study.check(config)
    return config


def row(recipe, acting, seed, values, key="normalized_scores", name="hopper-expert"):
    found = {"recipe": recipe, "acting": acting, "eval_seed": 1000}
    return {"dataset": name, "seed": seed, key: list(values), "settings": found}


@pytest.mark.parametrize("name", sorted(page.STUDIES))
def test_every_recipe_of_a_study_is_a_pretraining(tmp_path, name):
    config = complete(tmp_path, study=name)
    assert set(config.recipes) == set(page.STUDIES[name].recipes)
    assert set(page.STUDIES[name].quick) <= set(config.recipes)
    wanted = {key for line in page.STUDIES[name].curves.values() for key in line.values()}
    wanted |= set(page.STUDIES[name].bars.values())
    assert all(acting in page.STUDIES[name].recipes[recipe] for recipe, acting in wanted)


def test_a_specialised_model_is_trained_on_its_prompt_alone(tmp_path):
    run = entries.pretraining(complete(tmp_path), "only_id", "hopper-expert")
    assert {k: w for k, w in run.masks.patterns.items() if w} == {"id": 1.0}
    assert (run.variant, run.seeds, run.model.window) == ("mtm", 4, 4)


def test_quick_takes_less_of_everything(tmp_path):
    config = complete(tmp_path, study="window_length", quick=True)
    assert (config.names, config.recipes) == (("walker2d-medium-replay",), ("window_2", "window_8"))
    assert (config.seeds, config.episodes, config.steps) == (1, 5, 1500)
    assert complete(tmp_path, quick=True, steps=7).steps == 7
    assert complete(tmp_path, quick=True, out="", variant="m3pc").out == "runs/mtm_study-m3pc-quick"


def test_what_remains_lacks_episodes_or_errors(tmp_path):
    config = complete(tmp_path, recipes=("mtm", "only_fd"), names=("hopper-expert",), seeds=2)
    folder = entries.runs_folder(config, "mtm", "hopper-expert")
    for seed in range(2):
        records.append(folder / "results.jsonl", row("mtm", "bc", seed, np.zeros(20)))
        records.append(folder / "results.jsonl", row("mtm", "rcbc", seed, np.zeros(3)))
        records.append(folder / "errors.jsonl", row("mtm", "id", seed, [0.1], "errors"))
    found = {job.recipe: job.actings for job in jobs.remaining(config)}
    assert found == {"mtm": ("rcbc", "fd", "fd_alone"), "only_fd": ("fd", "fd_alone")}


def test_a_job_as_a_process_is_given_the_same_settings(tmp_path):
    config = complete(tmp_path, study="masking", quick=True, parallel=2)
    job = jobs.Job("random", "walker2d-medium-replay", ("rcbc",))
    given = cli.parse(list(jobs.arguments(config, job)), "configs/mtm_study.py")
    study.complete(given)
    assert list(jobs.remaining(given)) == [job]
    assert (given.steps, given.parallel, given.study) == (1500, 1, "masking")


def test_the_table_of_roles_has_the_paper_beside_it(tmp_path):
    config = complete(tmp_path, names=("hopper-expert",), seeds=2)
    rows = [row("mtm", "bc", s, np.full(20, 90.0)) for s in range(2)]
    rows += [row("mlp_id", "id", s, [0.25, 0.75], "errors") for s in range(2)]
    rows += [row("mtm", "rcbc", 0, np.ones(20))]  # a seed is missing
    table = tables.capabilities(tables.collect(rows, config))
    cells = [list(column.cells) for column in table.columns]
    assert cells[1] == ["BC (score)", "ID (error)"]
    assert cells[4] == ["90.0 [90.0, 90.0]", "-"] and cells[2][1].startswith("0.500 [")
    assert cells[7] == ["107.35 ± 7.77", "0.050 ± 0.026"]


def test_curves_are_drawn_from_rows_of_a_file(tmp_path, capsys, drawn):
    rows = [
        row(f"window_{t}", "rcbc", 0, np.full(20, float(t)), name="walker2d-medium-replay")
        for t in page.WINDOWS
    ]
    for each in rows:
        records.append(tmp_path / "rows.jsonl", each)
    study.main(settings(tmp_path, study="window_length", seeds=1, results=tmp_path / "rows.jsonl"))
    (line,) = drawn[0].axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[t, t] for t in page.WINDOWS])
    assert "32.0 [32.0, 32.0]" in capsys.readouterr().out
    assert not (tmp_path / "study").exists()


def test_mlps_are_trained_measured_and_played(tmp_path, hopper_file, capsys):
    given = TINY | {"source": hopper_file, "recipes": ("mlp_id", "mlp_rcbc")}
    config = settings(tmp_path, **given)
    study.main(config)
    out = capsys.readouterr().out
    assert "ID (error)" in out and "RCBC (score)" in out and "remains" not in out
    folder = entries.runs_folder(config, "mlp_rcbc", "hopper-medium")
    rows = records.read_jsonl(folder / "results.jsonl")
    assert [r["seed"] for r in rows] == [0, 1] and rows[0]["returns"] != rows[1]["returns"]
    assert jobs.remaining(config) == []


def test_bars_have_their_labels(tmp_path, drawn):
    config = complete(tmp_path, study="masking", seeds=1)
    rows = [row("mtm", "rcbc", 0, np.full(20, 7.0), name=name) for name in config.names]
    tables.draw(tables.collect(rows, config), page.STUDIES["masking"], tmp_path / "figure.png")
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.texts] == ["autoregressive"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(page.STUDIES))
def test_a_study_runs_from_end_to_end(tmp_path, hopper_file, capsys, name, monkeypatch):
    quick = {"data_efficiency": ("mtm_20", "hetero_20", "mlp_rcbc_20", "mtm", "mlp_rcbc")}
    quick["window_length"] = ("window_2", "window_16")
    monkeypatch.setitem(page.RECIPES, "mtm_1", {"data.episodes_fraction": 0.2})
    monkeypatch.setitem(page.RECIPES, "mlp_rcbc_1", {"data.episodes_fraction": 0.2})
    given = TINY | {"source": hopper_file, "study": name, "recipes": quick.get(name, ())}
    config = settings(tmp_path, **given)
    study.main(config)
    assert "remains" not in capsys.readouterr().out
    if name != "capabilities":
        assert (pathlib.Path(config.out) / f"{name}.png").is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"study": "roles"}, "unknown study 'roles'; choose among capabilities"),
        ({"recipes": ("window_2",)}, "recipes name 'window_2', which study capabilities does not"),
        ({"actings": ("m3pc_m",)}, "actings name 'm3pc_m'"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"names": ("hopper-medum",)}, "hopper-medum"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        complete(tmp_path, **changes)


def test_a_fraction_that_leaves_no_episode_is_refused(tmp_path, hopper_file):
    given = TINY | {"source": hopper_file, "study": "heteromodal", "recipes": ("mlp_rcbc_1",)}
    with pytest.raises(UserError, match="0.01 leaves none of its 11 episodes"):
        study.main(settings(tmp_path, **given))


def test_a_window_longer_than_the_episodes_is_refused(tmp_path, hopper_file, monkeypatch):
    monkeypatch.setitem(page.RECIPES, "window_32", {"model.window": 50, "eval.history": 31})
    given = TINY | {"source": hopper_file, "study": "window_length", "recipes": ("window_32",)}
    with pytest.raises(UserError, match="less than the window of 50; choose a window of at most"):
        study.main(settings(tmp_path, **given))
