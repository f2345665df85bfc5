"""The benchmark times what it says, counts it, and writes it down."""

import json
import runpy
import sys

import numpy as np
import pytest
from matplotlib import image

from experiments import bench, bench_figure, bench_planning, bench_timing, cli
from mtm_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("compiled_once")

TINY = {
    "widths": (16,),
    "encoder_layers": 1,
    "around": (),
    "compared": (),
    "candidates": (3,),
    "horizons": (2,),
    "environments": (1,),
    "plan.candidates": 3,
    "plan.horizon": 2,
    "plan.history": 2,
    "batch_size": 4,
    "seconds": 0.0,
    "repeats": 1,
}


def settings(**overrides):
    given = TINY | {k.replace("__", "."): v for k, v in overrides.items()}
    return cli.parse([f"--config.{k}={v}" for k, v in given.items()], "configs/bench.py")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of a whole tiny run."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(bench_timing, "_SIZES", {"cpu": (8, 16)})
        bench.main(settings(figure="latency.png"))
    return folder


def test_the_module_is_a_program(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "experiments.bench")
    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    runpy.run_module("experiments.bench", run_name="__main__")
    assert "--config.longest" in capsys.readouterr().out


def test_every_row_is_written_with_what_was_measured(written):
    report = json.loads((written / "results" / "bench-cpu.json").read_text())
    rows = report["rows"]
    whats = ["sampling", "training", "rcbc", "m3pc_m", "m3pc_q"]
    assert [row["what"] for row in rows] == whats
    assert [row["pruned"] for row in rows] == [None, None, None, True, True]
    for row in rows:
        assert row["calls"] >= 1 and row["seconds"] > 0 and row["width"] == 16
        assert row["per_second"] == pytest.approx(1 / row["seconds"])
        achieved = 2e-9 * row["multiply_adds"] / row["seconds"]
        assert row["gflops"] == pytest.approx(achieved)
        assert row["share"] == pytest.approx(achieved / row["product_gflops"])
        assert row["ratio_to_first"] is None
    assert set(report["machine"]) >= {"cpu", "cores", "product_gflops", "versions"}
    assert report["left_out"] == []


def test_keys_come_in_a_fixed_order(written):
    text = (written / "results" / "bench-cpu.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


def test_the_figure_is_drawn(written):
    assert image.imread(written / "latency.png").std() > 0.05


def test_the_table_fits_and_says_what_a_share_is_of(written, capsys):
    report = json.loads((written / "results" / "bench-cpu.json").read_text())
    report["left_out"] = ["m3pc_m with width 16: needs 99 GB"]
    report["rows"].append(report["rows"][3] | {"pruned": False, "ratio_to_first": 2.5})
    bench.show(report)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    words = " ".join(out.split())
    assert (
        "m3pc_m plain" in words
        and "2.50x" in words
        and "Left out: m3pc_m with width 16: needs 99 GB." in words
    )
    machine = report["machine"]
    assert f"{machine['product_gflops']:.0f} GFLOP/s in float32 products" in words
    assert machine["cpu"] in words


def test_settings_vary_one_by_one_around_the_standard_point():
    config = settings(
        widths=(16, 32),
        around=(32,),
        compared=(16,),
        candidates=(1, 5),
        horizons=(1, 2),
        environments=(1, 4),
    )
    point = bench_planning.Point
    narrow, wide = (bench_planning.points(config, width) for width in config.widths)
    standard = point("m3pc_m", 3, 2, 1, True)
    assert narrow == [
        [point("rcbc", None, None, 1, None)],
        [standard._replace(candidates=1)],
        [standard, standard._replace(pruned=False)],
        [standard._replace(candidates=5)],
        [standard._replace(method="m3pc_q")],
    ]
    assert len(wide) == 2 + 2 * (3 + 1 + 1)
    assert [standard._replace(method="m3pc_q", environments=4)] in wide
    assert [standard._replace(horizon=1)] in wide


def test_what_would_take_too_long_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr(bench.bench_training, "prepare", lambda *_: [])
    monkeypatch.setattr(bench.bench_planning, "prepare", lambda _, groups, *__: groups[3:])
    programs = lambda rate, network, group, config: float(len(group))  # noqa: E731
    monkeypatch.setattr(bench.bench_planning, "seconds_at", programs)
    config = settings(longest=1.0, compared=(16,))
    product = bench_timing.Product(8, lambda: None)
    rows, left_out = bench.bench_width(config, 16, product, peak=1.0)
    assert rows == [] and len(left_out) == 1
    point = "m3pc_m with candidates 3, horizon 2, environments 1, pruned False, width 16"
    assert left_out[0] == f"{point}: 2 s a round at the rate of products"


def test_calls_alternate_and_the_first_round_does_not_count(monkeypatch):
    order = []
    calls = [lambda: order.append("a"), lambda: order.append("b")]
    times = bench_timing.alternate(calls, seconds=0.0, repeats=3)
    assert order == ["a", "b"] * 4
    assert times.shape == (3, 2)
    monkeypatch.setattr(bench_timing, "_LONG", 0.0)
    assert bench_timing.alternate(calls, seconds=0.0, repeats=3).shape == (3, 2)
    assert len(order) == 14


def test_programs_of_one_loop_are_compared_round_by_round(monkeypatch):
    drift = np.array([1.0, 5.0, 2.0])  # of the machine
    times = drift[:, None] * [0.5, 1.5, 0.25]
    monkeypatch.setattr(bench_timing, "alternate", lambda *_: times)
    programs = [
        bench_timing.Program({"pruned": pruned}, None, multiply_adds, decisions=4)
        for pruned, multiply_adds in ((True, 10**9), (False, 2 * 10**9))
    ]
    product = bench_timing.Product(500, None)
    first, second = bench_timing.measure(programs, product, seconds=1.0, repeats=1)
    assert (first["ratio_to_first"], second["ratio_to_first"]) == (None, 3.0)
    assert (first["seconds"], first["per_second"], second["seconds"]) == (1.0, 4.0, 3.0)
    assert (first["gflops"], first["product_gflops"], first["share"]) == (2.0, 0.5, 4.0)
    assert second["gflops"] == pytest.approx(4 / 3) and second["pruned"] is False


def test_of_products_near_the_best_rate_the_smallest_is_taken(monkeypatch):
    assert bench_timing.Product(1000, None).rate(seconds=2.0) == pytest.approx(1.0)
    rates = {4: 1.0, 8: 9.8, 16: 10.0}
    monkeypatch.setattr(bench_timing.Product, "rate", lambda self, _: rates[self.size])
    product, peak = bench_timing.find_product(tuple(rates), repeats=1)
    assert (product.size, peak) == (8, 9.8)


def test_a_curve_holds_the_usual_horizon_only():
    row = {"width": 16, "horizon": 4, "candidates": 5, "seconds": 0.002}
    others = {"candidates": 1, "seconds": 0.001}, {"horizon": 1, "seconds": 9.0}
    rows = [row, *(row | other for other in others)]
    assert bench_figure.curve(rows, 16) == [(1, 1.0), (5, 2.0)]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"repeats": 0}, "repeats is 0; it must be at least 1"),
        ({"candidates": (0,)}, r"candidates are \(0,\); give numbers of at least 1"),
        ({"horizons": (7,)}, "horizons up to 7 do not fit into a window of 8"),
        ({"figure": "a.jpg"}, "'a.jpg' does not end in .png"),
    ],
)
def test_wrong_settings_are_refused_at_once(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        bench.main(settings(**overrides))
