"""Rows of studies are tabulated by value, beside the default rows."""

import io
import re

import pytest
from rich import console

from experiments.report import __main__ as report
from experiments.runtime import cli, report_studies
from mtm_jax.errors import UserError
from mtm_jax.io import records
from mtm_jax.plots import scores


def row(values, study=None, method="m3pc_m", seed=0, dataset="hopper-medium", candidates=64):
    plan = {"candidates": candidates, "xi": 1.0, "readout": "fd", "history": 4}
    settings = {"plan": plan} | (
        {"study": dict(zip(("name", "value"), study, strict=True))} if study else {}
    )
    fixed = {"step": 10, "normalized_scores": values, "settings": settings}
    return fixed | {"dataset": dataset, "method": method, "seed": seed}


ROWS = [
    row([10.0, 12.0]),
    row([20.0, 22.0], seed=1),
    row([99.0], method="rcbc"),
    row([13.0, 15.0], ("candidates", 625)),
    row([25.0, 27.0], ("candidates", 625), seed=1),
    row([8.0, 10.0], ("candidates", 1)),
    row([7.0, 7.0], ("readout", "rp"), method="m3pc_q"),
]


def shown(rows):
    out = console.Console(width=200, file=io.StringIO())
    out.print(report_studies.table(rows, report_studies.of_studies(rows)))
    lines = [re.split(r"\s{2,}", line.strip()) for line in out.file.getvalue().splitlines()]
    return {
        line["default" in line]: line[1 + ("default" in line) :] for line in lines if len(line) > 1
    }


def test_differences_are_paired_over_the_seeds_that_both_have():
    lines = shown(ROWS)
    assert lines["default"][0].startswith("16.0 [")
    mean, difference = lines["candidates 625"][:2]
    assert mean.startswith("20.0 [") and mean.endswith("(2)")
    assert difference == "+4.0 [+3.0, +5.0]"  # the same runs and episodes are drawn for both
    assert lines["candidates 1"][:2] == ["9.0 [8.0, 10.0] (1)", "-2.0 [-2.0, -2.0]"]


def test_methods_without_plain_rows_have_no_difference():
    assert shown(ROWS)["readout rp"] == ["-", "7.0 [7.0, 7.0] (1)"]


def test_a_data_set_is_compared_with_its_own_plain_rows():
    other = [
        row([1.0], dataset="walker2d-medium"),
        row([3.0], ("xi", 2.0), dataset="walker2d-medium"),
    ]
    lines = shown([*ROWS, *other])
    assert lines["xi 2.0"][:2] == ["3.0 [3.0, 3.0] (1)", "+2.0 [+2.0, +2.0]"]
    assert lines["candidates 1"][1] == "-2.0 [-2.0, -2.0]"


def test_plain_rows_join_a_study_at_their_own_value_and_in_order():
    joined = report_studies.with_plain(ROWS, report_studies.of_studies(ROWS))
    found = [scores.study_of(r)[:2] + (r["seed"],) for r in joined]
    plain = [("candidates", 64, 0), ("candidates", 64, 1)]
    later = [("candidates", 625, 0), ("candidates", 625, 1)]
    assert found == [("candidates", 1, 0), *plain, *later, ("readout", "rp", 0)]
    assert ROWS[0]["settings"].keys() == {"plan"}


def test_the_program_tabulates_and_draws(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    for r in ROWS:
        records.append(path, r)
    figure = tmp_path / "studies.png"
    flags = [f"--config.results={path}", "--config.studies=True", f"--config.figure={figure}"]
    report.main(cli.parse(flags, "configs/report.py"))
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "candidates 625" in capsys.readouterr().out


def test_what_cannot_be_tabulated_or_drawn_is_said():
    with pytest.raises(UserError, match="no row is from experiments.ablation; run it"):
        report_studies.of_studies(ROWS[:3])
    rows = [*ROWS, row([1.0], ("xi", 2.0), dataset="walker2d-medium")]
    with pytest.raises(UserError, match="the studies are of hopper-medium, walker2d-medium"):
        report_studies.with_plain(rows, report_studies.of_studies(rows))
