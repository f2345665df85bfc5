"""A study plays the same episodes with one setting of the plans at several values."""

import shutil

import pytest

from experiments import ablation
from experiments.runtime import cli
from mtm_jax.errors import UserError
from mtm_jax.io import records


def settings(run, **overrides):
    given = {"run": run, "eval.episodes": 2, "plan.candidates": 4}
    given |= {k.replace("__", "."): v for k, v in overrides.items()}
    return cli.parse([f"--config.{k}={v}" for k, v in given.items()], "configs/ablation.py")


def test_every_value_gets_a_row_and_a_place_in_the_figure(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    before = len(records.read_jsonl(run / "results.jsonl"))
    ablation.main(settings(run, study="candidates", choices="(1, 4)", methods="('m3pc_0',)"))
    rows = records.read_jsonl(run / "results.jsonl")[before:]
    assert [row["settings"]["plan"]["candidates"] for row in rows] == [1, 4]
    assert [row["settings"]["study"] for row in rows] == [
        {"name": "candidates", "value": 1},
        {"name": "candidates", "value": 4},
    ]
    assert {row["experiment"] for row in rows} == {"ablation"}
    assert (run / "figures" / "ablation_candidates.png").exists()


@pytest.mark.slow
def test_a_run_that_is_its_own_world_changes_nothing(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    ablation.main(settings(run, study="xi", choices="(2.0,)"))
    ablation.main(settings(run, study="xi", choices="(2.0,)", world=tiny_run))
    one, other = records.read_jsonl(run / "results.jsonl")[-2:]
    assert other["settings"]["world"] == tiny_run.name and "world" not in one["settings"]
    assert one["returns"] == pytest.approx(other["returns"], rel=1e-3)


def test_longer_horizons_take_their_room_from_the_history(tiny_run):
    config = settings(tiny_run, study="horizon")
    agent = ablation.pretrained.load(tiny_run)
    fitted = [ablation.fit(plan, agent) for _, _, plan in ablation.variants_of(config)]
    window = agent.model.config.window
    assert [p.history for p in fitted] == [min(4, window - p.horizon) for p in fitted]


def test_every_study_has_values_that_plans_take():
    for study in ablation.STUDIES:
        config = settings("unused", study=study, methods="('m3pc_m','m3pc_q')")
        assert len(ablation.variants_of(config)) == 2 * len(ablation.STUDIES[study])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"study": "depth"}, "plans have no setting 'depth'; choose candidates, history"),
        ({"study": "history"}, "study 'history' needs values"),
        (
            {"methods": "('rcbc',)"},
            "'rcbc' does not plan; choose m3pc_0 or m3pc_m or m3pc_v or m3pc_q",
        ),
        ({"choices": "(0,)"}, "plan horizon is 0; it must be at least 1"),
    ],
)
def test_studies_that_cannot_be_are_refused(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        ablation.variants_of(settings("unused", **overrides))
