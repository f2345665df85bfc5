"""Charts of scores hold every episode; how they look is for eyes."""

import pytest

from mtm_jax.errors import UserError
from mtm_jax.io import results
from mtm_jax.plots import scores


def write_result(run_dir, method, values, seed=0, target_return=None, **extra):
    row = results.result(
        experiment="evaluate",
        env_id="Hopper-v5",
        dataset="hopper-medium",
        method=method,
        seed=seed,
        step=1,
        returns=values,
        normalized_scores=values,
        target_return=target_return,
        settings={},
        metrics=extra,
    )
    results.write_result(run_dir, row)


def test_scores_show_every_episode_and_the_mean(tmp_path, drawn):
    write_result(tmp_path, "bc", [10.0, 30.0], dataset_mean_score=15.0)
    write_result(tmp_path, "rcbc", [40.0])
    scores.episodes(tmp_path)
    (axis,) = drawn[0].axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["bc", "rcbc"]
    dots = [collection.get_offsets()[:, 1].tolist() for collection in axis.collections]
    assert dots == [[10.0, 30.0], [40.0]]
    means = {line.get_ydata()[0] for line in axis.lines}
    assert means == {20.0, 40.0, 15.0}


def test_seeds_of_a_method_share_a_column(tmp_path, drawn):
    write_result(tmp_path, "bc", [10.0], seed=0)
    write_result(tmp_path, "bc", [30.0], seed=1)
    scores.episodes(tmp_path)
    (dots,) = drawn[0].axes[0].collections
    assert dots.get_offsets()[:, 1].tolist() == [10.0, 30.0]


def test_a_repeated_evaluation_counts_once(tmp_path, drawn):
    write_result(tmp_path, "bc", [10.0])
    write_result(tmp_path, "bc", [20.0])
    scores.episodes(tmp_path)
    (dots,) = drawn[0].axes[0].collections
    assert dots.get_offsets()[:, 1].tolist() == [20.0]


def test_returns_that_were_asked_for_have_a_column_each(tmp_path, drawn):
    write_result(tmp_path, "rcbc", [10.0], target_return=500.0)
    write_result(tmp_path, "rcbc", [30.0], target_return=1000.0)
    scores.episodes(tmp_path)
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert labels == ["rcbc\ntarget 500", "rcbc\ntarget 1000"]


def test_a_run_without_results_is_refused(tmp_path):
    with pytest.raises(UserError, match="no file"):
        scores.episodes(tmp_path)
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(UserError, match="no results to draw yet"):
        scores.episodes(tmp_path)
