"""The benchmark times what it says, counts it, and writes it down."""

import json
import runpy
import sys

import jax
import numpy as np
import pytest
from matplotlib import image
from test_operations import traced_products

from experiments.bench import __main__ as bench
from experiments.bench import (
    breakdown,
    collection,
    decisions,
    latency_figure,
    table,
    timing,
    training_steps,
    workloads,
)
from experiments.bench.pytorch import comparison
from experiments.runtime import cli
from mtm_jax.errors import UserError

TINY = {
    "sections": ("training", "critic", "decisions"),
    "encoder_layers": 1,
    "training.widths": (16,),
    "training.batches": (4,),
    "training.other_batches": (),
    "training.other_windows": (),
    "training.steps": 2,
    "critic.widths": (8,),
    "critic.batches": (4,),
    "widths": (16,),
    "around": (),
    "compared": (),
    "candidates": (3,),
    "horizons": (2,),
    "environments": (1,),
    "plan.candidates": 3,
    "plan.horizon": 2,
    "plan.history": 2,
    "parts.widths": (16,),
    "parts.batches": (4,),
    "seconds": 0.0,
    "repeats": 1,
}
MATMULS = {"float32": timing.Matmul(8, lambda: None, peak=1.0)}


def settings(**overrides):
    given = TINY | {k.replace("__", "."): v for k, v in overrides.items()}
    return cli.parse([f"--config.{k}={v}" for k, v in given.items()], "configs/bench.py")


def write(folder, **overrides):
    """Run tiny benchmarks in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(timing, "_SIZES", {"cpu": (8, 16)})
        bench.main(settings(**overrides))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bench"), figure="latency.png")


@pytest.fixture
def stored(root):
    """The committed benchmark."""
    return table.read(root / "results" / "bench-cpu.json")


def test_the_figure_of_stored_rows_is_drawn(stored, tmp_path):
    drawn = latency_figure.latency(stored["rows"], tmp_path / "latency.png")
    assert image.imread(drawn).std() > 0.05


def test_the_module_is_a_program(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "experiments.bench")
    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    runpy.run_module("experiments.bench", run_name="__main__")
    assert "--config.longest" in capsys.readouterr().out


@pytest.mark.slow
def test_every_row_is_written_with_what_was_measured(whole):
    report = json.loads((whole / "results" / "bench-cpu.json").read_text())
    rows = report["rows"]
    whats = ["training", "windows", "IQL update", "rcbc", "m3pc_m", "m3pc_q"]
    assert [row["what"] for row in rows] == whats
    for row in rows:
        assert row["calls"] >= 1 and row["seconds"] > 0 and row["bytes"] > 0
        assert row["per_second"] == pytest.approx(1 / row["seconds"])
        achieved = 2e-9 * row["multiply_adds"] / row["seconds"]
        assert row["gflops"] == pytest.approx(achieved)
        assert row["share"] == pytest.approx(achieved / row["product_gflops"])
        assert (row["ratio_to_first"] is not None) == (row["what"] == "windows")
    assert set(report["machine"]) >= {"cpu", "cores", "product_gflops", "versions"}
    assert report["left_out"] == []


@pytest.mark.slow
def test_the_figure_of_a_run_is_drawn(whole):
    assert image.imread(whole / "latency.png").std() > 0.05


def test_keys_come_in_a_fixed_order(tmp_path):
    text = (write(tmp_path, sections="('critic',)") / "results" / "bench-cpu.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


def test_the_table_fits_and_says_what_a_share_is_of(stored, capsys):
    report = stored | {"left_out": ["m3pc_m with width 16: needs 99 GB"]}
    planned = next(row for row in stored["rows"] if row["what"] == "m3pc_m")
    plain = planned | {"program": "plain", "ratio_to_first": 2.5, "candidates": 2500}
    plain |= {"width": 16, "horizon": 2}
    windows = next(row for row in stored["rows"] if row["what"] == "windows")
    first = stored["rows"][0] | {"whole_training_steps": 140_000}
    report["rows"] = [first, windows, planned]
    report["rows"] += [plain | {"environments": e, "seconds": 0.5 * e} for e in (16, 64, 256)]
    table.show(report)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 110
    words = " ".join(out.split())
    assert "m3pc_m plain width 16, N 2500, h 2, 16 envs" in words and "2.5x" in words
    assert "Left out: m3pc_m with width 16: needs 99 GB." in words
    assert "of a training step; the goal of less than 3% is" in words
    assert "is 140000 steps: " in words
    machine = report["machine"]
    assert f"{machine['product_gflops']['float32']:.0f} GFLOP/s in float32 matmuls" in words
    assert machine["cpu"] in words
    assert "environments 16: 8.00 s 256: 128.00 s 1.00" in words


def test_settings_vary_one_by_one_around_the_standard_point():
    config = settings(
        widths=(16, 32),
        around=(32,),
        compared=(16,),
        candidates=(1, 5),
        horizons=(1, 2),
        environments=(1, 4),
    )
    point = decisions.Point
    narrow, wide = (decisions.points(config, width) for width in config.widths)
    standard = point("m3pc_m", 3, 2, 1, True)
    assert narrow == [
        [point("rcbc", None, None, 1, None)],
        [standard._replace(candidates=1)],
        [standard, standard._replace(pruned=False)],
        [standard._replace(candidates=5)],
        [standard._replace(method="m3pc_q")],
    ]
    assert len(wide) == 3 + 2 * (3 + 1 + 1)
    assert [point("m3pc_goal", None, None, 1, None)] in wide
    assert [standard._replace(method="m3pc_q", environments=4)] in wide
    assert [standard._replace(horizon=1)] in wide


def test_what_would_take_too_long_is_left_out_and_named(monkeypatch):
    needed = lambda rate, network, group, config: float(len(group))  # noqa: E731
    monkeypatch.setattr(decisions, "seconds_at", needed)
    config = settings(longest=1.0, compared=(16,))
    (workload,) = decisions.section(config, MATMULS)
    assert [len(group) for group in workload.groups] == [1, 1, 1]
    point = "m3pc_m with candidates 3, horizon 2, environments 1, pruned False, width 16"
    assert workload.left_out == [f"{point}: 2 s per round at the peak rate"]


def test_what_does_not_fit_into_memory_is_left_out_and_named(monkeypatch):
    name = workloads.row_name("decisions", "rcbc", width=16)
    program = workloads.Program(name, lambda: pytest.fail("called"), cost=workloads.Cost(10**15))
    workload = workloads.Workload("test", [[lambda: program]], ["something else"])
    rows, left_out = bench.run(workload, settings(), MATMULS)
    assert rows == []
    assert left_out == ["something else", "rcbc with width 16: needs 1000000 GB"]


@pytest.mark.parametrize("pruned", [True, False])
def test_the_decision_that_is_timed_computes_what_is_counted(monkeypatch, pruned):
    traced = []

    def compile_call(function, arguments):
        traced.append(jax.make_jaxpr(function)(*arguments))
        return function, workloads.Cost()

    monkeypatch.setattr(workloads, "compile_call", compile_call)
    network = decisions.network_of(width=16, encoder_layers=1)
    point = decisions.Point("m3pc_m", 3, 2, 1, pruned)
    program = decisions.compile_point(network, point, history=2)
    assert traced_products(traced[0].jaxpr) == program.multiply_adds


def test_training_varies_one_setting_at_a_time():
    sizes = {"widths": (16, 32), "batches": (4, 8), "other_batches": (8,), "other_windows": (5,)}
    points = training_steps.points(settings(**{f"training__{k}": v for k, v in sizes.items()}))
    assert points == [(16, 4, 8), (32, 8, 8), (16, 8, 8), (16, 4, 5)]


def test_presets_are_timed_with_their_own_settings():
    (workload,) = training_steps.preset_section(settings(presets=("paper",)), MATMULS)
    name = workload.groups[0][0].args[2]
    assert name["whole_training_steps"] == 140_000
    assert (name["width"], name["batch_size"], name["window"]) == (512, 2048, 8)
    prepared = workload.groups[0][0].args[0]()
    assert prepared.settings.model.dropout == 0.1
    assert prepared.settings.optim.total_steps == 140_000


@pytest.mark.slow
def test_seeds_share_a_program():
    (workload,) = training_steps.seed_section(settings(seeds=(3,)), MATMULS)
    assert [make.args[2]["seeds"] for make in workload.groups[0]] == [1, 3]
    small = training_steps.plain_settings(training_steps.Point(16, 4, 8), 1, "float32")
    programs = [
        training_steps.seed_steps(lambda: training_steps.prepare(small), 1, make.args[2])
        for make in workload.groups[0]
    ]
    assert programs[1].multiply_adds == 3 * programs[0].multiply_adds
    assert [program.call().step.tolist() for program in programs] == [1, [1, 1, 1]]


def test_collecting_is_split_among_the_workers(monkeypatch):
    calls = []
    collect = lambda tasks, workers, *_, **__: calls.append((tasks, workers))  # noqa: E731
    monkeypatch.setattr(collection.collector, "collect", collect)
    monkeypatch.setattr(collection.collector, "cores", lambda: 3)
    (workload,) = collection.section(settings(collection_steps=1200), MATMULS)
    programs = [make() for (make,) in workload.groups]
    programs[1].call()
    ((tasks, workers),) = calls
    assert workers == 3 and sum(task.steps for task in tasks) == 1200 == programs[1].decisions
    assert len({task.spawn_key for task in tasks}) == len(tasks) == 12


def test_without_pytorch_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (workload,) = comparison.section(settings(), MATMULS)
    assert workload.groups == [] and "pip install torch" in workload.left_out[0]


def test_parts_of_a_step_and_of_a_decision_have_the_shapes_of_the_whole():
    (workload,) = breakdown.section(settings(), MATMULS)
    step, decision = workload.groups
    shapes = {}
    for make in (*step[1:], *decision[1:]):
        part, function, arguments = make.args
        shapes[part] = jax.tree.map(lambda x: x.shape, jax.eval_shape(function, *arguments))
    assert list(shapes)[0] == "windows" and list(shapes)[-3:] == [
        *("proposing", "predicting", "choosing"),
    ]
    activations, (grads, _) = shapes["feed-forward"]
    assert activations == ((4, 32, 16), (4, 32, 16))  # too few windows to pair them
    assert grads["encoder"][0]["ffn_in"]["kernel"] == (16, 64)
    assert shapes["heads, losses"][0] == () and shapes["gathering"][0] == (4, 32, 16)
    assert shapes["proposing"] == (3, 2, 3) and shapes["choosing"] == (3,)


def test_updates_continue_where_the_last_call_ended():
    call, _ = workloads.compile_updates(lambda x, y: x + y, jax.numpy.ones(()), 2.0)
    assert [float(call()) for _ in range(3)] == [3.0, 5.0, 7.0]


def test_calls_alternate_and_the_first_round_does_not_count(monkeypatch):
    order = []
    calls = [lambda: order.append("a"), lambda: order.append("b")]
    times = timing.alternate(calls, seconds=0.0, repeats=3)
    assert order == ["a", "b"] * 4
    assert times.shape == (3, 2)
    monkeypatch.setattr(timing, "_LONG", 0.0)
    assert timing.alternate(calls, seconds=0.0, repeats=3).shape == (3, 2)
    assert len(order) == 14
    assert timing.alternate(calls, seconds=9.0, repeats=9, patience=0.0).shape == (3, 2)


def test_programs_of_one_loop_are_compared_round_by_round(monkeypatch):
    drift = np.array([1.0, 5.0, 2.0])  # of the machine
    times = drift[:, None] * [0.5, 1.5, 0.25]
    monkeypatch.setattr(timing, "alternate", lambda *_: times)
    programs = [
        workloads.Program({"program": name}, None, products, decisions=4, steps=steps)
        for name, products, steps in (("", 10**9, 1), ("plain", 2 * 10**9, 3))
    ]
    product = timing.Matmul(500, None)
    first, second = timing.measure(programs, product, seconds=1.0, repeats=1)
    assert (first["ratio_to_first"], second["ratio_to_first"]) == (None, 1.0)
    assert (first["seconds"], first["per_second"], second["seconds"]) == (1.0, 4.0, 1.0)
    assert (first["gflops"], first["product_gflops"], first["share"]) == (2.0, 0.5, 4.0)
    assert second["gflops"] == pytest.approx(4.0) and second["program"] == "plain"


def test_of_matmuls_near_the_best_rate_the_smallest_is_taken(monkeypatch):
    assert timing.Matmul(1000, None).rate(seconds=2.0) == pytest.approx(1.0)
    rates = {4: 1.0, 8: 9.8, 16: 10.0}
    monkeypatch.setattr(timing.Matmul, "rate", lambda self, _: rates[self.size])
    product = timing.find_matmul(sizes=tuple(rates), repeats=1)
    assert (product.size, product.peak) == (8, 9.8)


def test_a_curve_holds_the_usual_horizon_only():
    row = {"width": 16, "horizon": 4, "candidates": 5, "seconds": 0.002}
    others = {"candidates": 1, "seconds": 0.001}, {"horizon": 1, "seconds": 9.0}
    rows = [row, *(row | other for other in others)]
    assert latency_figure.curve(rows, 16) == [(1, 1.0), (5, 2.0)]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"repeats": 0}, "repeats is 0; it must be at least 1"),
        ({"candidates": (0,)}, r"candidates are \(0,\); give numbers of at least 1"),
        ({"horizons": (7,)}, "horizons up to 7 do not fit into a window of 8"),
        ({"sections": ("decision",)}, "choose among presets, seeds, training, critic, decis"),
        ({"training__batches": (4, 8)}, r"training.widths \(16,\) and training.batches \(4, 8\)"),
        ({"figure": "a.jpg"}, "'a.jpg' does not end in .png"),
    ],
)
def test_wrong_settings_are_refused_at_once(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        bench.main(settings(**overrides))
