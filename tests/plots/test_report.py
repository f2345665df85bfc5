"""From rows to the view data of the report: what is kept, compared, and said."""

import pathlib
import re

import numpy as np
import pytest

from mtm_jax.agents import imagination
from mtm_jax.plots import style
from mtm_jax.plots.report import blocks, configuration, evaluations, forecasts, learning, panels
from mtm_jax.plots.report.run import Run


def row(method, scores, step=10, target=None, eval_seed=1000, **settings):
    return {
        "method": method,
        "step": step,
        "normalized_scores": scores,
        "returns": [10.0 * score for score in scores],
        "target_return": target,
        "checkpoint": "last",
        "env_id": "Hopper-v5",
        "dataset": "hopper-medium",
        "settings": {"eval_seed": eval_seed, **settings},
        "versions": {"jax": "0.10"},
    }


def run(*results, name="one", config=None, defaults=None, metrics=()):
    empty = {"plans": None, "imagined": None, "videos": ()}
    return Run(pathlib.Path(name), name, config or {}, defaults, metrics, results, **empty)


def cells(table):
    return {line[0].text: [cell.text for cell in line[1:]] for line in table.rows}


def test_the_last_evaluation_of_the_last_step_counts():
    rows = [row("bc", [1.0], 20), row("bc", [2.0], 10), row("bc", [3.0], 20)]
    assert evaluations.latest(rows)["bc"]["normalized_scores"] == [3.0]


def test_ways_of_one_method_are_told_apart_by_what_differs_and_studies_are_left_out():
    plans = [row("m3pc_m", [1.0], plan={"xi": xi, "horizon": 4}) for xi in (1.0, 2.0)]
    study = row("m3pc_m", [9.0], study={"name": "xi", "value": 3.0})
    assert list(evaluations.latest([*plans, study])) == ["m3pc_m (xi 1)", "m3pc_m (xi 2)"]


def test_methods_are_compared_in_the_same_episodes():
    one = run(row("rcbc", [10.0, 20.0], target=300.0), row("bc", [13.0, 23.0]), row("x", [1.0]))
    table = evaluations.methods(one, "rcbc", evaluations.colours([one]))
    found = cells(table)
    assert found["bc"] == ["18.0", "[13.0, 23.0]", "2", "180.0", "–", "+3.0 [+3.0, +3.0]"]
    assert found["rcbc"][4:] == ["300.0", "–"] and found["x"][-1] == "other episodes"
    assert "score − rcbc" in [cell.text for cell in table.header]


def test_runs_are_compared_only_where_they_played_the_same_episodes():
    unknown = row("x", [1.0], eval_seed=None)
    runs = [
        run(row("bc", [1.0, 5.0]), row("rcbc", [1.0]), unknown),
        run(row("bc", [0.0, 4.0]), row("rcbc", [2.0], eval_seed=7), unknown, name="two"),
    ]
    found = cells(evaluations.side_by_side(runs, evaluations.colours(runs)))
    assert found["bc"][-1] == "−1.0 [−1.0, −1.0]"
    assert found["rcbc"][-1] == found["x"][-1] == "other episodes"


def test_what_differs_from_the_preset_is_found_but_not_what_the_machine_chose():
    defaults = {"steps": 6000, "seed": 0, "out": "", "dtype": "auto"}
    own = {"steps": 30, "seed": 0, "out": "here", "dtype": "float32"}
    assert configuration.changed(run(config=own, defaults=defaults)) == {"steps": (6000, 30)}
    assert configuration.changed(run(config=own)) == {}


def test_a_curve_has_the_steps_at_which_its_metric_was_logged():
    rows = [{"step": 1, "train/states": 3.0}, {"step": 2}, {"step": 4, "train/states": 2.0}]
    assert learning.curve(run(metrics=rows), "train/states").tolist() == [[1, 3], [4, 2]]


PLANS = {"starts": [0, 2], "values": [9.0, 5.0], "rewards": [1.0, 2.0, 3.0], "discount": 0.5}


def test_predicted_returns_are_held_against_what_followed_to_the_end():
    predicted, followed = forecasts.returns(PLANS | {"ended": True})
    assert predicted.tolist() == [9.0, 5.0] and followed.tolist() == [1 + 0.5 * 2 + 0.25 * 3, 3.0]


def test_of_an_episode_that_was_cut_both_count_to_the_last_plan():
    predicted, followed = forecasts.returns(PLANS | {"ended": False})
    assert predicted.tolist() == [9.0 - 0.25 * 5.0] and followed.tolist() == [1 + 0.5 * 2]


def test_forecasts_keep_the_first_value_of_each_plan_and_whether_the_episode_ended():
    plans = {name: np.arange(6.0).reshape(2, 3) for name in ("values", "rewards")}
    recording = imagination.Recording(
        *("Hopper-v5", None, np.ones(4), None, np.array([0, 2]), None),
        *(plans["rewards"], plans["values"], None, np.ones((2, 3)), None, None, None),
    )
    found = imagination.forecasts(recording, 4)
    assert found["values"] == [0.0, 3.0] and not found["ended"]
    assert (found["imagined"], found["real"]) == ([3.0, 12.0], [3.0, 3.0])
    assert imagination.forecasts(recording, 5)["ended"]


def test_drawings_take_the_colours_of_the_page_and_share_no_name():
    line = [panels.Curve(np.array([[0.0, 1.0], [1.0, 2.0]]), style.BLUE)]
    one, two = (panels.curves(name, "states", line) for name in ("a", "b"))
    assert "currentColor" in one and "var(--line)" in one and style.INK not in one
    assert not set(re.findall(r'\bid="([^"]*)"', one)) & set(re.findall(r'\bid="([^"]*)"', two))
    for name in re.findall(r"(?:url\(#|href=\"#)([^\")]+)", one):
        assert f'id="{name}"' in one


@pytest.mark.parametrize(("text", "shown"), [("-1.0 [-2.0, +3.0]", "−1.0 [−2.0, +3.0]")])
def test_numbers_have_a_minus_and_words_keep_their_hyphen(text, shown):
    ((word, number),) = blocks.table("", ["", ""], [["hopper-medium", text]]).rows
    assert (word.text, number.text) == ("hopper-medium", shown)
    assert number.number and not word.number
