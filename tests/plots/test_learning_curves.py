"""Learning curves hold every metric that was written."""

import numpy as np
import pytest

from mtm_jax.errors import UserError
from mtm_jax.io import metrics
from mtm_jax.plots import learning_curves


def write_metrics(run_dir):
    writer = metrics.MetricsWriter(run_dir)
    for step in (100, 200, 300):
        losses = {"train/states": 1 / step, "train/actions": -float(step), "train/loss": 1 / step}
        writer.write(step, losses | {"train/nll": 1.0, "train/learning_rate": 0.1})
    writer.write(300, {"valid/bc/actions": 0.5, "valid/bc/nll": 0.25})


def test_learning_curves_place_every_metric(tmp_path, drawn):
    write_metrics(tmp_path)
    learning_curves.draw(tmp_path)
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
    learning_curves.draw(tmp_path)
    assert drawn[0].axes[0].get_yscale() == scale


def test_a_run_without_metrics_is_refused(tmp_path):
    with pytest.raises(UserError, match="no file"):
        learning_curves.draw(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="no metrics to draw yet"):
        learning_curves.draw(tmp_path)
