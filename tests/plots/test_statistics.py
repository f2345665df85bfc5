"""Intervals cover what they should, and bars stand for the scores they were given."""

import dataclasses
import json
import re

import numpy as np
import pytest

from experiments.report import __main__ as report
from experiments.report import tables
from experiments.runtime import cli
from mtm_jax.config import PromptConfig
from mtm_jax.errors import UserError
from mtm_jax.plots import scores, statistics


def test_an_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for k in range(200):
        runs = rng.normal(size=(8, 1)) + rng.normal(size=(8, 20))  # runs differ, and episodes
        found = statistics.mean_interval(runs, draws=300, seed=k)
        covered += found.low <= 0.0 <= found.high
    assert 0.82 <= covered / 200 <= 0.99  # eight runs resample a little too narrow


def test_runs_that_differ_widen_the_interval():
    same = statistics.mean_interval([[0.0, 1.0] * 50] * 4)
    apart = statistics.mean_interval([[x] * 100 for x in (-1.0, 0.0, 1.0, 2.0)])
    assert same.mean == apart.mean == pytest.approx(0.5)
    assert apart.high - apart.low > 5 * (same.high - same.low)


def test_equal_scores_have_no_width():
    assert statistics.mean_interval([[3.0, 3.0]]) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("runs", [[], [[]], [[1.0], []]])
def test_an_interval_of_nothing_is_refused(runs):
    with pytest.raises(UserError, match="needs scores"):
        statistics.mean_interval(runs)


def row(dataset, method, values, seed=0, step=10, **settings):
    return {
        "settings": settings,
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "step": step,
        "normalized_scores": values,
    }


ROWS = [
    row("hopper-medium", "rcbc", [10.0, 20.0]),
    row("hopper-medium", "rcbc", [30.0, 50.0], seed=1),
    row("hopper-medium", "m3pc_m", [60.0]),
    row("hopper-medium", "m3pc_m", [40.0]),  # evaluated again
    row("walker2d-medium", "rcbc", [7.0]),
]


def test_a_repeated_evaluation_counts_once_and_seeds_stay_apart():
    found = scores.collect(ROWS)
    assert found["hopper-medium"] == {"rcbc": [[10.0, 20.0], [30.0, 50.0]], "m3pc_m": [[40.0]]}


def test_only_the_last_step_of_a_seed_counts():
    late, early = row("hopper-medium", "bc", [2.0], step=20), row("hopper-medium", "bc", [1.0])
    other = row("hopper-medium", "bc", [3.0], seed=1)
    for rows in ([other, early, late], [late, early, other]):
        assert scores.collect(rows) == {"hopper-medium": {"bc": [[2.0], [3.0]]}}


def test_bars_are_drawn_for_methods_that_some_data_set_lacks(tmp_path):
    path = scores.bars(scores.collect(ROWS), tmp_path / "new" / "bars.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_sum_is_resampled_jointly_and_a_method_is_as_good_as_itself():
    rng = np.random.default_rng(0)
    runs = {m: rng.normal(10.0, 1.0, (3, 5)).tolist() for m in ("rcbc", "bc")}
    shown = cells({"a": runs, "b": runs}, "rcbc")
    mean, low, high = (float(x) for x in re.findall(r"[\d.]+", shown["sum of 2"][1]))
    assert mean == pytest.approx(2 * np.mean(runs["rcbc"]), abs=0.06) and low < mean < high
    one = statistics.mean_interval(runs["rcbc"])
    # Errors of two data sets partly cancel.
    assert high - low < 1.9 * (one.high - one.low)
    assert shown["relative to rcbc"][1] == "+0.0% [+0.0, +0.0]"
    assert re.fullmatch(r"[+-][\d.]+% \[-[\d.]+, \+[\d.]+\]", shown["relative to rcbc"][2])
    assert "relative to rcbc" not in cells({"a": {"rcbc": [[-1.0, 2.0]]}}, "rcbc")


def cells(found, baseline):
    """Read a table back: name of the line -> all of its cells."""
    columns = [list(column.cells) for column in tables.table(found, baseline).columns]
    return {line[0]: line for line in zip(*columns, strict=True)}


def reported(folder, rows):
    for name, row in enumerate(rows):
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    report.main(cli.parse([f"--config.results={folder}"], "configs/report.py"))


def test_a_report_sums_what_every_method_has_and_compares(tmp_path, capsys):
    reported(tmp_path, ROWS)
    shown = capsys.readouterr().out
    for text in ("27.5 [", "], 2 runs", "], 1 run", "walker2d-medium (1 run)", "sum of 1"):
        assert text in shown
    assert "40.0 [40.0, 40.0]" in shown and "+45.5% [" in shown


def test_a_report_leaves_studies_out(tmp_path, capsys):
    study = {"study": {"name": "xi", "value": 3.0}}
    reported(tmp_path, [*ROWS, row("hopper-medium", "m3pc_m", [99.0], step=11, **study)])
    shown = capsys.readouterr().out
    assert "left out: 1 rows of experiments.ablation" in shown and "40.0 [40.0, 40.0]" in shown


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"preset": "small"}, {"preset": "paper"}, "preset is 'small' there and 'paper' here"),
        ({"plan": {"xi": 1.0}}, {"plan": {"xi": 3.0}}, "plan.xi is 1.0 there and 3.0 here"),
        ({}, {"entropy": "none"}, "entropy is 'joint' there and 'none' here"),
        ({}, {"world": "other"}, "world is None there and 'other' here"),
        (
            {"prompt": dataclasses.asdict(PromptConfig())},
            {"prompt": dataclasses.asdict(PromptConfig(action="mean"))},
            "prompt.action is 'mode' there and 'mean' here",
        ),
        ({"masks": {"fd": 0.4}}, {"masks": {"fd": 0.1}}, "masks.fd is 0.4 there and 0.1 here"),
    ],
)
def test_rows_of_different_kinds_are_no_runs_of_one_method(tmp_path, one, other, said):
    rows = [row("hopper-medium", "bc", [1.0], seed=k, **s) for k, s in enumerate((one, other))]
    sentence = f"1.jsonl holds.* than .*0.jsonl: {said}; keep such rows in different folders"
    with pytest.raises(UserError, match=sentence):
        reported(tmp_path, rows)


def test_rows_that_do_not_say_how_they_acted_by_a_prompt_did_so_plainly(tmp_path, capsys):
    plain = {"prompt": dataclasses.asdict(PromptConfig())}
    rows = [row("hopper-medium", "bc", [1.0], seed=k, **s) for k, s in enumerate((plain, {}))]
    reported(tmp_path, rows)
    assert "(2 runs)" in capsys.readouterr().out


def test_what_is_asked_for_matters_where_it_is(tmp_path, capsys):
    rows = [row("hopper-medium", "bc", [1.0], seed=k, target_fraction=k) for k in (1, 2)]
    reported(tmp_path, rows)
    assert "(2 runs)" in capsys.readouterr().out
    with pytest.raises(UserError, match="target_fraction is 1 there and 2 here"):
        reported(tmp_path, [r | {"target_return": 100.0} for r in rows])


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="no results were named"):
        report.main(cli.parse([], "configs/report.py"))
    with pytest.raises(UserError, match="holds no rows of results"):
        report.main(cli.parse([f"--config.results={tmp_path}"], "configs/report.py"))


def test_the_results_of_this_repository_are_of_one_kind(root, capsys):
    report.main(cli.parse([f"--config.results={root}/results/m3pc_offline"], "configs/report.py"))
    assert "sum of 6" in capsys.readouterr().out
