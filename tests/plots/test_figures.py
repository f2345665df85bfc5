"""Figures hold what they were given; how they look is for eyes."""

import numpy as np
import pytest
from matplotlib import colors, image, patches

from mtm_jax import masks
from mtm_jax.errors import UserError
from mtm_jax.io import metrics, results
from mtm_jax.plots import figures
from mtm_jax.types import MODALITIES


def write_metrics(run_dir):
    writer = metrics.MetricsWriter(run_dir)
    for step in (100, 200, 300):
        losses = {"train/states": 1 / step, "train/actions": -float(step), "train/loss": 1 / step}
        writer.write(step, losses | {"train/nll": 1.0, "train/learning_rate": 0.1})
    writer.write(300, {"valid/bc/actions": 0.5, "valid/bc/nll": 0.25})


def write_result(run_dir, method, scores, seed=0, target_return=None, **extra):
    row = results.result(
        experiment="evaluate",
        env_id="Hopper-v5",
        dataset="hopper-medium",
        method=method,
        seed=seed,
        step=1,
        returns=scores,
        normalized_scores=scores,
        target_return=target_return,
        settings={},
        metrics=extra,
    )
    results.write_result(run_dir, row)


def test_learning_curves_place_every_metric(tmp_path, drawn):
    write_metrics(tmp_path)
    figures.learning_curves(tmp_path)
    axes = {axis.get_title(loc="left"): axis for axis in drawn[0].axes if axis.lines}
    panels = {title: [line.get_label() for line in axis.lines] for title, axis in axes.items()}
    assert panels == {
        "train losses": ["states", "loss"],
        "train/actions": ["actions"],
        "nll": ["train"],
        "learning_rate": ["train"],
        "validation: nll": ["bc"],
        "validation: actions": ["bc"],
    }
    states = axes["train losses"].lines[0].get_xydata()
    np.testing.assert_allclose(states, [[s, 1 / s] for s in (100, 200, 300)])
    assert axes["train losses"].get_yscale() == "log"
    assert axes["train/actions"].get_yscale() == "linear"


@pytest.mark.parametrize(("first", "scale"), [(-3.0, "linear"), (365.0, "symlog")])
def test_first_steps_do_not_hide_the_rest_of_a_curve(tmp_path, drawn, first, scale):
    writer = metrics.MetricsWriter(tmp_path)
    for step, value in enumerate((first, 1.5, 0.5, -0.5), 1):
        writer.write(step, {"train/nll": value})
    figures.learning_curves(tmp_path)
    assert drawn[0].axes[0].get_yscale() == scale


def test_scores_show_every_episode_and_the_mean(tmp_path, drawn):
    write_result(tmp_path, "bc", [10.0, 30.0], dataset_mean_score=15.0)
    write_result(tmp_path, "rcbc", [40.0])
    figures.scores(tmp_path)
    (axis,) = drawn[0].axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["bc", "rcbc"]
    dots = [collection.get_offsets()[:, 1].tolist() for collection in axis.collections]
    assert dots == [[10.0, 30.0], [40.0]]
    means = {line.get_ydata()[0] for line in axis.lines}
    assert means == {20.0, 40.0, 15.0}


def test_seeds_of_a_method_share_a_column(tmp_path, drawn):
    write_result(tmp_path, "bc", [10.0], seed=0)
    write_result(tmp_path, "bc", [30.0], seed=1)
    figures.scores(tmp_path)
    (dots,) = drawn[0].axes[0].collections
    assert dots.get_offsets()[:, 1].tolist() == [10.0, 30.0]


def test_a_repeated_evaluation_counts_once(tmp_path, drawn):
    write_result(tmp_path, "bc", [10.0])
    write_result(tmp_path, "bc", [20.0])
    figures.scores(tmp_path)
    (dots,) = drawn[0].axes[0].collections
    assert dots.get_offsets()[:, 1].tolist() == [20.0]


def test_returns_that_were_asked_for_have_a_column_each(tmp_path, drawn):
    write_result(tmp_path, "rcbc", [10.0], target_return=500.0)
    write_result(tmp_path, "rcbc", [30.0], target_return=1000.0)
    figures.scores(tmp_path)
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert labels == ["rcbc\nfor 500", "rcbc\nfor 1000"]


def test_mask_panels_hold_the_visibility_of_masks(drawn, tmp_path):
    figures.mask_patterns(tmp_path / "masks.png", window=5, slot=2)
    axes = drawn[0].axes
    assert len(axes) == 2 + len(masks.PROMPTS)
    shown = dict(zip(figures._PROMPT_TITLES, axes[2:], strict=True))
    assert set(shown) == set(masks.PROMPTS)
    for name, axis in shown.items():
        drawn_visible = np.array([is_visible(p) for p in axis.patches[:20]]).reshape(4, 5)
        expected = masks.prompt(name, 2, 5)
        np.testing.assert_array_equal(drawn_visible, [expected[m] for m in MODALITIES])


def is_visible(token: patches.Rectangle) -> bool:
    return token.get_facecolor() != colors.to_rgba(figures.HIDDEN)


def test_mask_figure_is_a_png(tmp_path):
    path = figures.mask_patterns(tmp_path / "docs" / "masks.png")
    assert image.imread(path).shape[1] > 1000


def test_slot_outside_the_window_is_refused(tmp_path):
    with pytest.raises(UserError, match="slot 8 is not in a window of 8 steps"):
        figures.mask_patterns(tmp_path / "masks.png", window=8, slot=8)


@pytest.mark.parametrize("draw", [figures.learning_curves, figures.scores])
def test_run_without_records_is_refused(tmp_path, draw):
    with pytest.raises(UserError, match="no file"):
        draw(tmp_path)


@pytest.mark.parametrize(
    ("draw", "name"),
    [(figures.learning_curves, "metrics.jsonl"), (figures.scores, "results.jsonl")],
)
def test_run_with_empty_records_is_refused(tmp_path, draw, name):
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="to draw yet"):
        draw(tmp_path)
