"""The summary of the benchmark finds curves and fits them."""

import pytest

from experiments.bench import scaling, workloads


def row(section="decisions", what="m3pc_m", seconds=1.0, **more):
    found = workloads.row_name(section, what) | {"seconds": seconds, "ratio_to_first": None}
    return found | more


def test_the_exponent_is_that_of_the_upper_half():
    flat, steep = {1: 1.0, 2: 1.0, 4: 1.0}, {8: 4.0, 16: 16.0, 32: 64.0}
    assert scaling.exponent(flat | steep) == pytest.approx(2.0)
    assert scaling.exponent({1: 9.0, 2: 1.0, 4: 2.0}) == pytest.approx(1.0)


def test_a_curve_differs_in_one_setting_only():
    rows = [row(candidates=n, horizon=4, seconds=0.1 * n) for n in (25, 5, 1)]
    rows += [row(candidates=n, horizon=2) for n in (1, 5)]  # too few
    rows += [row(candidates=125, horizon=4, program="plain")]
    rows += [row("parts", candidates=n, horizon=4) for n in (625, 2500)]
    (growth,) = scaling.growths(rows)
    assert (growth.what, growth.axis) == ("m3pc_m (horizon 4)", "candidates")
    assert growth.points == [(1, 0.1), (5, 0.5), (25, 2.5)]
    assert growth.exponent == pytest.approx(1.0)


def test_the_summary_holds_sampling_to_its_goal_and_extrapolates_presets():
    windows = [row("training", "windows", ratio_to_first=x) for x in (0.01, 0.04)]
    paper = row("presets", "preset paper", seconds=0.05, whole_training_steps=140_000)
    peer = [row("peer", ratio_to_first=x) for x in (None, 1.5, 5.25)]
    said = scaling.sentences([*windows, paper, *peer])
    assert said == [
        "Sampling windows takes 1.0 to 4.0% of a training step; the goal of less than 3% is missed",
        "A training of preset paper is 140000 steps: 1.9 hours",
        "PyTorch takes 1.50 to 5.25 times as long as this package",
    ]
    assert "is met" in scaling.sentences(windows[:1])[0]
