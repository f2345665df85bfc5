"""Intervals cover what they should, and bars stand for the scores they were given."""

import json

import numpy as np
import pytest

from experiments import cli, report
from mtm_jax import score_figures, statistics
from mtm_jax.errors import UserError


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


def row(dataset, method, scores, seed=0, step=10):
    return {
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "step": step,
        "normalized_scores": scores,
    }


ROWS = [
    row("hopper-medium", "rcbc", [10.0, 20.0]),
    row("hopper-medium", "rcbc", [30.0, 50.0], seed=1),
    row("hopper-medium", "m3pc_m", [60.0]),
    row("hopper-medium", "m3pc_m", [40.0]),  # evaluated again
    row("walker2d-medium", "rcbc", [7.0]),
]


def test_a_repeated_evaluation_counts_once_and_seeds_stay_apart():
    scores = score_figures.collect(ROWS)
    assert scores["hopper-medium"] == {"rcbc": [[10.0, 20.0], [30.0, 50.0]], "m3pc_m": [[40.0]]}


def test_bars_are_drawn_for_methods_that_some_data_set_lacks(tmp_path):
    path = score_figures.bars(score_figures.collect(ROWS), tmp_path / "new" / "bars.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_report_sums_what_every_method_has_and_compares(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    report.main(cli.parse([f"--config.results={tmp_path}"], "configs/report.py"))
    shown = capsys.readouterr().out
    for text in ("hopper-medium (2 runs)", "27.5 [", "sum of 1", "27.5", "40.0", "+45.5%"):
        assert text in shown


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="no results were named"):
        report.main(cli.parse([], "configs/report.py"))
    with pytest.raises(UserError, match="holds no rows of results"):
        report.main(cli.parse([f"--config.results={tmp_path}"], "configs/report.py"))
