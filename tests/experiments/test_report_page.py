"""The page of `python -m experiments.report RUN...` is whole, alone and true to its rows."""

import html.parser
import json
import re
import shutil
import subprocess

import imageio.v3 as imageio
import numpy as np
import pytest

from experiments import m3pc_offline
from experiments.report import __main__ as report
from experiments.report import folders
from experiments.runtime import cli, runs
from mtm_jax.errors import UserError
from mtm_jax.io import records, results

NAME = "<b>&'run"
SCORES = {"bc": [12.3, 45.6], "rcbc": [50.0, 60.0], "m3pc_m": [55.5, 61.5]}


class Page(html.parser.HTMLParser):
    """Tags with their attributes, texts, and the cells of every line of every table."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.lines = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")

    def handle_data(self, data):
        self.texts.append(data)
        if self.lines and self.lines[-1] and self.tags[-1][0] in ("td", "th", "span"):
            self.lines[-1][-1] += data.strip()

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def row(method, scores, seed):
    return results.result(
        experiment="m3pc_offline",
        env_id="Hopper-v5",
        dataset="hopper-medium",
        method=method,
        seed=seed,
        step=30,
        returns=[30.0 * score for score in scores],
        normalized_scores=scores,
        target_return=None if method == "bc" else 2000.0,
        settings={"eval_seed": 1000},
    )


def fill(folder, config, seed):
    """Write what a run leaves behind, without training it."""
    runs.open_run(folder, runs.to_json(config))
    for step in range(1, 4):
        losses = {f"train/{m}": 2.0 / step for m in ("states", "returns", "actions", "rewards")}
        losses |= {"train/nll": 1.0 - step, "valid/train_masks/states": 3.0 / step}
        records.append(folder / "metrics.jsonl", {"step": step, **losses})
    for method, scores in SCORES.items():
        records.append(folder / "results.jsonl", row(method, [s + seed for s in scores], seed))
    plans = {"starts": [0, 2], "values": [5.0, 3.0], "imagined": [2.0, 3.0], "real": [2.5, 2.5]}
    plans |= {"rewards": [1.0] * 4, "ended": True, "method": "m3pc_m", "discount": 1.0}
    plans["step"] = 30
    records.append(folder / "imagination.jsonl", plans)
    imageio.imwrite(folder / "figures" / "imagination.png", np.zeros((4, 4, 3), np.uint8))
    imageio.imwrite(folder / "videos" / "imagination.gif", np.zeros((2, 4, 4, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_config):
    """Two runs, and the page about them."""
    folder = tmp_path_factory.mktemp("report")
    extra = "wandb_project=<script>alert(1)</script>"
    pair = [fill(folder / NAME, tiny_config(folder / NAME, extra), 0)]
    pair.append(fill(folder / "other", tiny_config(folder / "other", "seed=1"), 1))
    return pair, written(pair)


def written(pair, **options):
    """Write the page, and read it."""
    argv = [str(run) for run in pair] + [f"--config.{k}={v}" for k, v in options.items()]
    report.main(cli.parse(report.spell_out(argv), "configs/report.py"))
    return (pair[0] / "report.html").read_text()


def test_the_numbers_are_those_of_the_rows(made):
    lines = Page(made[1]).lines
    for method, scores in SCORES.items():
        means = [f"{np.mean(scores) + seed:.1f} [" for seed in (0, 1)]
        of_method = [line for line in lines if line[0] == method]
        assert all(mean in cell for mean, cell in zip(means, of_method[0][1:], strict=False))
        assert of_method[0][3] == "+1.0 [+1.0, +1.0]"
        assert of_method[1][1] == f"{np.mean(scores):.1f}"
        returns = [f"{30.0 * score:,.1f}" for score in scores]
        assert any(line[2:] == returns and line[1] == "1000" for line in of_method)
    assert ["rewards to the end", "2", "4.0", "3.0", "+1.0", "1.0"] in lines


def test_the_page_is_whole_and_needs_nothing_else(made):
    page = Page(made[1])
    images = page.all("img")
    assert len(images) == 4 and all(image["alt"] for image in images)
    sources = [attrs["src"] for _, attrs in page.tags if "src" in attrs]
    assert all(source.startswith("data:image/") for source in sources)
    links = [v for _, a in page.tags for k, v in a.items() if k in ("href", "xlink:href")]
    assert links and all(link.startswith("#") for link in links)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"url\((?!#)|@import", made[1])


def test_what_is_shown_is_also_said(made):
    page = Page(made[1])
    drawings = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert len(drawings) == len(page.all("svg")) and all(d["aria-label"] for d in drawings)
    heads = page.all("th")
    assert heads and all(attrs["scope"] in ("col", "row") for attrs in heads)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_names_and_values_are_escaped(made):
    page = Page(made[1])
    assert not {"b", "script"} & {tag for tag, _ in page.tags}
    assert ["wandb_project", "unset", "<script>alert(1)</script>"] not in page.lines
    assert any(line[0] == "wandb_project" and "<script>" in line[-1] for line in page.lines)
    assert any(NAME in text for text in page.texts)


def test_what_is_missing_is_said_with_its_command(made, tmp_path):
    bare = tmp_path / "a run"
    bare.mkdir()
    shutil.copy(made[0][1] / "config.json", bare)
    text = "".join(Page(written([bare])).texts)
    assert f"python -m experiments.m3pc_offline --config.run='{bare}'" in text
    assert "make pretrain ENV=hopper-medium PRESET=paper" in text
    for lack in ("not been evaluated", "no metrics", "no plans", "no video", "no figure"):
        assert lack in text


def test_large_videos_stay_outside(made, tmp_path, monkeypatch):
    run = shutil.copytree(made[0][1], tmp_path / "run")
    monkeypatch.setattr(folders, "_SMALL", 1)
    page = Page(written([run]))
    (link,) = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert link == (run / "videos" / "imagination.gif").resolve().as_uri()


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("config.json", "{}", "holds no pretraining run"),
        ("results.jsonl", '{"method": "bc"}\n', "whose dataset, seed.* cannot be used"),
        ("results.jsonl", "{\n", "results.jsonl line 1 is damaged"),
        ("metrics.jsonl", '{"step": 1, "train/states": "x"}\n', "whose train/states cannot be"),
        (
            "imagination.jsonl",
            '{"starts": ["x"]}\n',
            "imagination.jsonl is damaged; write it again",
        ),
    ],
)
def test_damaged_files_are_refused(made, tmp_path, file, content, sentence):
    run = shutil.copytree(made[0][1], tmp_path / "run")
    (run / file).write_text(content)
    with pytest.raises(UserError, match=sentence):
        written([run])


def test_a_row_whose_returns_are_damaged_is_refused(made, tmp_path):
    run = shutil.copytree(made[0][1], tmp_path / "run")
    for broken in ({"returns": [1.0]}, {"returns": ["x", "y"]}, {"versions": 3}):
        line = row("bc", SCORES["bc"], 1) | broken
        (run / "results.jsonl").write_text(json.dumps(line) + "\n")
        with pytest.raises(UserError, match="results.jsonl holds a"):
            written([run])


def test_what_is_no_run_is_refused(made, tmp_path):
    with pytest.raises(UserError, match="holds no run: config.json is missing"):
        written([tmp_path])
    with pytest.raises(UserError, match="was named twice"):
        written([made[0][1], made[0][1]])
    with pytest.raises(UserError, match="runs and results were both named"):
        written([made[0][1]], results="results")


def test_words_are_runs_and_flags_keep_theirs():
    spelled = report.spell_out(["a", "--config", "configs/report.py", "b'c", "--debug"])
    assert spelled[1:] == ["--config", "configs/report.py", "--debug"]
    config = cli.parse(spelled, "configs/report.py")
    assert config.runs == ("a", "b'c")


def test_runs_of_one_folder_name_are_told_apart(tmp_path):
    paths = [tmp_path / "x" / "seed0", tmp_path / "y" / "seed0", tmp_path / "y" / "seed1"]
    assert folders.names(paths) == ["x/seed0", "y/seed0", "y/seed1"]
    assert folders.names(paths[1:]) == ["seed0", "seed1"]


@pytest.mark.slow
def test_a_run_that_planned_holds_what_the_page_compares(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    given = {"run": run, "plan.candidates": 2, "eval.episodes": 2, "imagined_steps": 6}
    argv = [f"--config.{k}={v}" for k, v in given.items()] + ["--config.eval.methods=('m3pc_m',)"]
    m3pc_offline.main(cli.parse(argv, "configs/m3pc_offline.py"))
    page = Page(written([run]))
    assert len(page.all("img")) == 2
    assert any(line[:2] == ["rewards of a plan", "3"] for line in page.lines)
    assert any("m3pc_m at step 30 in one episode" in text for text in page.texts)


PROBE = """<script>
const small = [...document.querySelectorAll("main *, header *")].filter((e) =>
  [...e.childNodes].some((n) => n.nodeType == 3 && n.data.trim()) && (() => {
    const svg = e.closest("svg"), size = parseFloat(getComputedStyle(e).fontSize);
    const zoom = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    return size * zoom < 13.9;
  })()).map((e) => e.textContent);
const root = document.documentElement;
parent.postMessage(JSON.stringify([innerWidth, root.scrollWidth, small]), "*");
</script></body>"""
# A window is at least 500 pixels wide; a frame in it may be narrower.
FRAME = """<script>onmessage = (e) => { document.title = e.data; }</script>
<iframe src="page.html" style="width:%dpx; height:900px; border:0"></iframe>"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_screen_and_can_be_read(made, tmp_path, width):
    file, frame = tmp_path / "page.html", tmp_path / "frame.html"
    opened = made[1].replace("<details>", "<details open>")
    file.write_text(opened.replace("</body>", PROBE))
    frame.write_text(FRAME % width)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    flags += " --disable-background-networking --disable-component-update --dump-dom"
    flags += f" --virtual-time-budget=5000 --user-data-dir={tmp_path / 'browser'}"
    argv = ["chromium", *flags.split(), "--window-size=1400,900", frame.as_uri()]
    shown = subprocess.run(argv, capture_output=True, timeout=120)
    found = re.search(r"<title>(\[.*?\])</title>", shown.stdout.decode(), re.DOTALL)
    inner, whole, small = json.loads(found[1])
    assert inner == width and whole <= width
    assert small == []
