"""Figures of data sets hold every episode; how they look is for eyes."""

import dataclasses

import numpy as np
import pytest
from matplotlib import image

from mtm_jax.errors import UserError
from mtm_jax.plots import data_sets
from mtm_jax.types import DataInfo, Trajectories


def make(env_id="Hopper-v5", count=30):
    lengths = np.arange(1, count + 1)
    rows = int(lengths.sum())
    return Trajectories(
        observations=np.zeros((rows, 11), np.float32),
        actions=np.zeros((rows, 3), np.float32),
        rewards=np.ones(rows, np.float32),
        terminals=np.zeros(rows, bool),
        lengths=lengths,
        final_observations=np.zeros((count, 11), np.float32),
        info=DataInfo("hopper-x", "a test", env_id, 1000, (-1.0,) * 3, (1.0,) * 3),
    )


def heights(axis):
    return [bar.get_height() for bar in axis.patches]


def test_histograms_hold_every_episode(drawn):
    data_sets.histograms(make(), "x.png")
    returns, lengths = drawn[0].axes
    assert sum(heights(returns)) == sum(heights(lengths)) == 30
    assert returns.get_xlabel() == "episode return"
    assert lengths.get_xlabel() == "episode length (steps)"
    assert "hopper-x: 30 episodes, 465 steps" in drawn[0].get_suptitle()


def test_scores_are_on_top_where_there_is_a_reference(drawn):
    for env_id, axes in (("Hopper-v5", 1), ("", 0)):
        data_sets.histograms(make(env_id), "x.png")
        assert len(drawn[-1].axes[0].child_axes) == axes


def test_data_without_returns_have_an_empty_panel(drawn):
    lacking = dict.fromkeys(("rewards", "returns"), np.zeros(30, bool))
    data_sets.histograms(dataclasses.replace(make(), available=lacking), "x.png")
    returns, lengths = drawn[0].axes
    assert heights(returns) == [] and sum(heights(lengths)) == 30


def test_the_grid_has_a_row_per_environment_in_the_order_of_the_registry(drawn):
    values = np.linspace(0.0, 3234.3, 50)
    names = ["walker_run-explore", "hopper-expert", "walker_walk-explore", "hopper-medium"]
    data_sets.return_grid(dict.fromkeys(names, values), "x.png")
    titles = [axis.get_title(loc="left").partition("\n") for axis in drawn[0].axes]
    assert [name for name, _, _ in titles] == [
        *("hopper-medium", "hopper-expert", "walker_walk-explore", "walker_run-explore"),
    ]
    assert titles[0][2] == "mean score 50.3"
    for axis in drawn[0].axes:
        assert sum(heights(axis)) == pytest.approx(100.0)


def test_data_sets_of_a_row_share_their_bins(drawn):
    returns = {"hopper-medium": np.zeros(5), "hopper-expert": np.full(9, 80.0)}
    data_sets.return_grid(returns, "x.png")
    edges = [[bar.get_x() for bar in axis.patches] for axis in drawn[0].axes]
    assert edges[0] == edges[1]
    assert max(edges[0]) < 80.0


def test_files_are_written_with_their_folders(tmp_path):
    path = data_sets.histograms(make(), tmp_path / "new" / "x.png")
    assert image.imread(path).shape[0] > 300


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name, says in (("folder.png", "no figure can be written"), ("x", "does not end in .png")):
        with pytest.raises(UserError, match=says):
            data_sets.histograms(make(count=2), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]
