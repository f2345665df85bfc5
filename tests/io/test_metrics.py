"""Rows that are written come back, damaged ones are named, and unfinished ones never count."""

import fcntl
import io
import json
import math
import sys
import threading
import types

import jax.numpy as jnp
import numpy as np
import pytest
import rich
from rich import console

from mtm_jax.errors import UserError
from mtm_jax.io import metrics, progress, records, results


def make_result(**changes):
    fields = {
        "experiment": "evaluate",
        "env_id": "Hopper-v5",
        "dataset": "hopper-medium",
        "method": "rcbc",
        "seed": 0,
        "step": 100,
        "returns": np.array([1000.0, 2000.0], np.float32),
        "normalized_scores": [40.0, 60.0],
        "target_return": 3000,
        "settings": {"fractions": (0.5, np.float32(1.0)), "steps": jnp.int32(3)},
    }
    return results.result(**(fields | changes))


def test_metrics_round_trip(tmp_path):
    writer = metrics.MetricsWriter(tmp_path / "run")
    writer.write(1, {"train/loss": jnp.float32(0.5)})
    writer.write(2, {"train/loss": np.float64(0.25), "valid/bc/actions": 1})
    assert records.read_jsonl(writer.path) == [
        {"step": 1, "train/loss": 0.5},
        {"step": 2, "train/loss": 0.25, "valid/bc/actions": 1.0},
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_metric_that_is_not_finite_is_refused(tmp_path, value):
    writer = metrics.MetricsWriter(tmp_path)
    with pytest.raises(ValueError, match=r"train/loss is .* at step 7"):
        writer.write(7, {"train/entropy": 1.0, "train/loss": value})
    assert not writer.path.exists()


def test_truncate_drops_later_rows_and_leaves_no_other_file(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    for step in (100, 200, 300):
        writer.write(step, {"train/loss": float(step)})
    metrics.MetricsWriter(tmp_path).truncate(200)
    assert [row["step"] for row in records.read_jsonl(writer.path)] == [100, 200]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_truncate_of_a_new_run_is_nothing(tmp_path):
    metrics.MetricsWriter(tmp_path).truncate(0)
    assert list(tmp_path.iterdir()) == []


def test_unfinished_line_of_a_killed_process_is_dropped(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    writer.write(1, {"train/loss": 1.0})
    with writer.path.open("a") as file:
        file.write('{"step": 2, "train/lo')
    assert [row["step"] for row in records.read_jsonl(writer.path)] == [1]
    writer.write(3, {"train/loss": 3.0})
    assert [row["step"] for row in records.read_jsonl(writer.path)] == [1, 3]


def test_a_row_waits_for_one_that_another_process_writes(tmp_path):
    path = tmp_path / "results.jsonl"
    with path.open("ab", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b'{"n": 1')
        added = threading.Thread(target=records.append, args=(path, {"n": 2}))
        added.start()
        added.join(0.2)
        other.write(b"}\n")
    added.join()
    assert [row["n"] for row in records.read_jsonl(path)] == [1, 2]


def test_damaged_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl line 2 is damaged"):
        records.read_jsonl(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file .*metrics\.jsonl"):
        records.read_jsonl(tmp_path / "metrics.jsonl")


def test_results_round_trip(tmp_path):
    results.write_result(tmp_path, make_result())
    results.write_result(tmp_path, make_result(method="bc", target_return=None))
    first, second = records.read_jsonl(tmp_path / "results.jsonl")
    assert first["normalized_mean"] == 50.0
    assert first["returns"] == [1000.0, 2000.0]
    assert first["checkpoint"] == "last"
    assert first["settings"] == {"fractions": [0.5, 1.0], "steps": 3}
    assert first["target_return"] == 3000.0 and second["target_return"] is None
    assert first["versions"]["mujoco"] and first["versions"]["platform"] == "cpu"


def test_the_same_evaluation_done_again_takes_the_place_of_the_first(tmp_path):
    for method in ("bc", "rcbc"):
        results.write_result(tmp_path, make_result(method=method))
    again = make_result(method="bc", returns=[1.0, 2.0], metrics={"seconds": 3.0})
    results.write_result(tmp_path, again)
    others = ({"seed": 9}, {"step": 9}, {"settings": {"eval_seed": 9}}, {"target_return": 9.0})
    for other in others:
        results.write_result(tmp_path, make_result(method="bc", **other))
    more = {"returns": [1.0, 2.0, 3.0], "normalized_scores": [1.0, 2.0, 3.0]}
    results.write_result(tmp_path, make_result(method="bc", **more))
    rows = records.read_jsonl(tmp_path / "results.jsonl")
    assert [row["method"] for row in rows] == ["rcbc", "bc", *["bc"] * len(others), "bc"]
    assert rows[1]["returns"] == [1.0, 2.0] and rows[1]["metrics"] == {"seconds": 3.0}


def test_a_damaged_file_takes_a_result_nevertheless(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"a": \n{"cut')
    results.write_result(tmp_path, make_result())
    first, second = path.read_text().splitlines()
    assert first == '{"a": ' and json.loads(second)["method"] == "rcbc"


def test_a_row_that_waits_for_a_file_that_is_replaced_is_not_lost(tmp_path):
    path = tmp_path / "results.jsonl"
    records.append(path, {"n": 1})
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        added = threading.Thread(target=records.append, args=(path, {"n": 3}))
        added.start()
        added.join(0.2)
        records.rewrite(path, [{"n": 1}, {"n": 2}])
    added.join()
    assert [row["n"] for row in records.read_jsonl(path)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"returns": []}, "0 returns and 2 normalized scores"),
        ({"returns": [], "normalized_scores": []}, "0 returns and 0"),
        ({"normalized_scores": [1.0, math.nan]}, "normalized_scores of rcbc"),
        ({"returns": [1.0, math.inf]}, "returns of rcbc"),
    ],
)
def test_result_off_the_contract_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_result(**changes)


def test_result_without_a_key_is_refused_and_not_written(tmp_path):
    row = make_result()
    del row["env_id"]
    with pytest.raises(ValueError, match="result lacks env_id"):
        results.write_result(tmp_path, row)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_json_does_not_know_are_refused(tmp_path):
    with pytest.raises(TypeError, match="object"):
        results.write_result(tmp_path, make_result(settings={"a": object()}))


def test_rows_are_strict_json(tmp_path):
    results.write_result(tmp_path, make_result())

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads((tmp_path / "results.jsonl").read_text(), parse_constant=refuse)


def test_table_holds_score_and_spread(capsys):
    results.print_results([make_result(), make_result(method="bc", target_return=None)])
    out = capsys.readouterr().out
    assert "50.0 ± 10.0" in out and "1500.0" in out and "3000.0" in out
    assert [line.split()[1] for line in out.splitlines() if "hopper-medium" in line] == [
        *("rcbc", "bc"),
    ]


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_progress_prints_plain_lines_now_and_then(capsys, clock):
    with progress.progress(100, "pretrain", start=40) as bar:
        for step, seconds in ((50, 5.0), (60, 10.0), (80, 30.0), (100, 31.0)):
            clock[0] = 100.0 + seconds
            bar.update(step, f"loss {step} [x]")
    assert capsys.readouterr().out.splitlines() == [
        "pretrain 50/100, 2.0 steps/s, 0:00:05 elapsed, 0:00:25 left  loss 50 [x]",
        "pretrain 80/100, 1.2 steps/s, 0:00:30 elapsed, 0:00:17 left  loss 80 [x]",
        "pretrain 100/100, 20.0 steps/s, 0:00:31 elapsed, 0:00:00 left  loss 100 [x]",
    ]


def test_progress_draws_a_bar_in_a_terminal(monkeypatch):
    screen = console.Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr(rich, "get_console", lambda: screen)
    with progress.progress(100, "pretrain", start=40) as bar:
        bar.update(70, "loss 0.5 [x]")
    out = screen.file.getvalue()
    assert "70/100" in out and "loss 0.5 [x]" in out and "steps/s" in out


def test_wandb_gets_the_same_rows(monkeypatch, tmp_path):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    module = types.SimpleNamespace(init=lambda **settings: calls.append(settings) or Run())
    monkeypatch.setitem(sys.modules, "wandb", module)
    writer = metrics.WandbWriter("project", "name", {"seed": 1})
    writer.write(3, {"train/loss": np.float32(0.5)})
    writer.close()
    assert calls == [
        {"project": "project", "name": "name", "config": {"seed": 1}},
        (3, {"train/loss": 0.5}),
        "finished",
    ]


def test_missing_wandb_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'mtm_jax\[wandb\]'"):
        metrics.WandbWriter("project", "name", {})
