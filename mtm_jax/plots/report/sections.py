"""The sections of the page, each from what runs hold; what they lack is said with its command."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from mtm_jax import masks
from mtm_jax.config import MaskConfig
from mtm_jax.plots import style
from mtm_jax.plots.report import blocks, configuration, evaluations, forecasts, learning, panels
from mtm_jax.plots.report.run import Run, Video

_DRAWS = 512  # masks behind the shares of visible tokens
_WIDE = 1100  # pixels of a figure of imagined rollouts
_VIDEO_TYPES = {".gif": "image/gif", ".mp4": "video/mp4"}


def of_runs(runs: Sequence[Run], baseline: str) -> list[blocks.Section]:
    """Build all sections of a page about one run or several.

    Args:
        runs: at least one.
        baseline: method that the others are compared with.
    """
    section = blocks.Section
    return [
        section("methods", "Methods", methods(runs, baseline)),
        section("episodes", "Episodes", episodes(runs)),
        section("learning", "Learning curves", learning.of_runs(runs)),
        section("calibration", "Predicted returns", _each(runs, calibration)),
        section("imagination", "Imagined and real", _each(runs, imagined)),
        section("masks", "Masks", mask_patterns(runs)),
        section("videos", "Videos", _each(runs, videos)),
        section("configuration", "Configuration", configuration.of_runs(runs)),
        section("versions", "Environment and versions", environment(runs)),
    ]


def _each(runs: Sequence[Run], make) -> list:
    return [block for k, run in enumerate(runs) for block in make(run, k)]


def command(program: str, run: Run) -> str:
    """Write the command of a program that evaluates a run."""
    return f"python -m experiments.{program} --config.run={shlex.quote(str(run.path))}"


def methods(runs: Sequence[Run], baseline: str) -> list:
    """Compare runs, then the methods of each."""
    with_rows = [run for run in runs if evaluations.latest(run.results)]
    known = evaluations.colours(with_rows)
    found: list = [evaluations.side_by_side(with_rows, known)] if len(with_rows) > 1 else []
    found += [evaluations.methods(run, baseline, known) for run in with_rows]
    if with_rows:
        found.append(
            blocks.Text(
                "Intervals are 95% bootstrap intervals over the episodes of one training seed; "
                "they do not say how other seeds would differ. Differences are of the same "
                "episodes, which begin in the same states."
            )
        )
    for run in runs:
        if run not in with_rows:
            text = f"{run.name} has not been evaluated yet."
            found.append(blocks.Missing(text, command("m3pc_offline", run)))
    return found


def episodes(runs: Sequence[Run]) -> list:
    """Draw and tabulate every episode."""
    with_rows = [run for run in runs if evaluations.latest(run.results)]
    if not with_rows:
        return []
    known = evaluations.colours(with_rows)
    found = [evaluations.latest(run.results) for run in with_rows]
    scores = [{k: row["normalized_scores"] for k, row in rows.items()} for rows in found]
    every = np.concatenate([values for one in scores for values in one.values()])
    margin = 0.05 * max(float(np.ptp(every)), 1.0)
    limits = float(every.min() - margin), float(every.max() + margin)
    drawn = [
        blocks.Figure(
            panels.episodes(f"episodes{k}", one, known, limits),
            f"Normalised scores of the episodes of {run.name}: a dot each, a bar at each mean",
            run.name,
        )
        for k, (run, one) in enumerate(zip(with_rows, scores, strict=True))
    ]
    tables = [evaluations.episodes(run, known) for run in with_rows]
    return [blocks.Figures(drawn), blocks.Folded("Returns of all episodes", tables)]


def calibration(run: Run, k: int) -> list:
    """Show returns asked for and reached, and predicted returns against what followed."""
    known = evaluations.colours([run])
    asked = evaluations.asked(run, known)
    found: list = [asked] if asked else []
    if run.plans is None:
        text = f"{run.name} holds no plans with what followed them."
        return [*found, blocks.Missing(text, command("m3pc_offline", run))]
    return found + forecasts.of_run(run, k)


def imagined(run: Run, k: int) -> list:
    """Show the figure of imagined rollouts."""
    if run.imagined is None:
        text = f"{run.name} has no figure of imagined rollouts."
        return [blocks.Missing(text, command("m3pc_offline", run))]
    alt = "An episode, what its plans predicted of it, and what their actions did in the simulator"
    caption = f"{run.name}: an episode, its plans as the model predicted them, and in the simulator"
    return [blocks.Picture(data_uri("image/png", run.imagined), alt, caption, _WIDE)]


def videos(run: Run, k: int) -> list:
    """Show videos that are small, and name the others."""
    if not run.videos:
        text = f"{run.name} has no video."
        return [blocks.Missing(text, command("m3pc_offline", run))]
    return [_video(run, video) for video in run.videos]


def _video(run: Run, video: Video):
    name = f"{run.name}: {video.path.name}"
    if video.data is None:
        text = f"{name} ({video.size / 1e6:.1f} MB, a file beside this page, not inside it)"
        return blocks.Link(video.path.as_uri(), text)
    source = data_uri(_VIDEO_TYPES[video.path.suffix], video.data)
    alt = f"The robot in an episode of {run.name}, beside what its model imagined"
    if video.path.suffix == ".gif":
        return blocks.Picture(source, alt, name, 512, shrinks=True)
    return blocks.Film(source, alt, name)


def data_uri(kind: str, data: bytes) -> str:
    """Write a file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def mask_patterns(runs: Sequence[Run]) -> list:
    """Draw the distribution of training masks of each run, once where runs share it."""
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        settings = mask_config(run.config), run.config["model.window"], run.config["variant"]
        found.setdefault(settings, []).append(run)
    return [
        block
        for k, ((config, window, variant), same) in enumerate(found.items())
        for block in _masks(f"masks{k}", config, window, variant, [run.name for run in same])
    ]


def mask_config(config: Mapping) -> MaskConfig:
    """Read the distribution of masks from "a.b" -> value."""
    parts = {key: {} for key in ("patterns", "modality_weights")}
    for key, value in config.items():
        head, _, leaf = key.rpartition(".")
        if head.removeprefix("masks.") in parts and head.startswith("masks."):
            parts[head.removeprefix("masks.")][leaf] = value
    patterns = tuple((name, w) for name, w in parts["patterns"].items() if w > 0)
    weights = tuple(parts["modality_weights"].items())
    return MaskConfig(patterns, tuple(config["masks.fractions"]), weights)


def _masks(name: str, config: MaskConfig, window: int, variant: str, names: Sequence[str]) -> list:
    used = [m for m in style.MODALITY_COLOURS if variant != "mtm" or m != "rewards"]
    keys = jax.random.split(jax.random.key(0), _DRAWS)
    drawn = jax.vmap(lambda key: masks.draw(key, config, window, used))(keys)  # [N, T] each
    shown = {m: np.asarray(value, float) for m, value in drawn.items()}
    titles = [(f"mask {n + 1}", {m: v[n] for m, v in shown.items()}) for n in range(2)]
    titles.append(("share of masks", {m: v.mean(0) for m, v in shown.items()}))
    figures = [
        blocks.Figure(panels.mask(f"{name}{n}", title, visible), _mask_alt(title, visible))
        for n, (title, visible) in enumerate(titles)
    ]
    total = sum(w for _, w in config.patterns)
    mixture = ", ".join(f"{p.replace('_', ' ')} {100 * w / total:.0f}%" for p, w in config.patterns)
    text = (
        f"{', '.join(names)}: training masks are drawn from {mixture}. Filled tokens are visible, "
        f"empty ones hidden; the last drawing is the share of {_DRAWS} masks that show each token."
    )
    return [blocks.Text(text), blocks.Figures(figures)]


def _mask_alt(title: str, visible: Mapping[str, np.ndarray]) -> str:
    shares = ", ".join(f"{m} {100 * v.mean():.0f}%" for m, v in visible.items())
    return f"Visible tokens of a training window, {title}: {shares}"


def environment(runs: Sequence[Run]) -> list:
    """Tabulate environments and versions."""
    found = evaluations.versions(runs)
    text = "Versions and devices are stored with results, and no run has been evaluated yet."
    return [found] if found else [blocks.Missing(text, command("m3pc_offline", runs[0]))]
