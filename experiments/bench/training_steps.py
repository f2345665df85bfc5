"""Programs of `experiments.bench` that train: gradient steps, and the sampling of windows."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import config_dict

from experiments.bench import operations, timing, workloads
from experiments.runtime import config_files
from experiments.training import build
from mtm_jax.config import MaskConfig, ModelConfig, OptimConfig, PretrainConfig
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import dataset, pretrain, program
from mtm_jax.types import DataInfo, ModalitySpec, Trajectories

# Hopper's dimensions.
MODALITIES = (
    ModalitySpec("states", 11),
    ModalitySpec("returns", 1),
    ModalitySpec("actions", 3, head="tanh_normal"),
    ModalitySpec("rewards", 1),
)
LIMIT = 1000  # time limit of an episode, in steps

Workloads = Iterator[workloads.Workload]


class Point(NamedTuple):
    """One setting of a training step."""

    width: int
    batch_size: int
    window: int


def points(config: config_dict.ConfigDict) -> list[Point]:
    """List what to time: every size, and around the first one each setting by itself."""
    sizes, window = config.training, ModelConfig(MODALITIES).window
    found = [Point(*size, window) for size in zip(sizes.widths, sizes.batches, strict=True)]
    centre = found[0]
    found += [centre._replace(batch_size=n) for n in sizes.other_batches]
    found += [centre._replace(window=n) for n in sizes.other_windows]
    return list(dict.fromkeys(found))


def section(config: config_dict.ConfigDict, matmuls: timing.Matmuls) -> Workloads:
    """Time plain training steps, each together with the sampling of its windows."""
    for dtype in workloads.dtypes(config):
        groups = []
        for point in points(config):
            settings = plain_settings(point, config.encoder_layers, dtype)
            prepared = functools.cache(functools.partial(prepare, settings))
            name = workloads.row_name("training", "training", dtype, **point._asdict())
            groups.append(
                [
                    functools.partial(steps, prepared, config.training.steps, name),
                    functools.partial(sampling, prepared, name | {"what": "windows"}),
                ]
            )
        yield workloads.Workload("training", groups)


def preset_section(config: config_dict.ConfigDict, matmuls: timing.Matmuls) -> Workloads:
    """Time the training steps of the presets; rows hold how many steps a training takes."""
    usual = ("small",) if jax.default_backend() == "cpu" else ("small", "base", "paper")
    groups = []
    for preset in dict.fromkeys(usual if "auto" in config.presets else config.presets):
        chosen = config_files.load(f"configs/pretrain.py:hopper-medium,preset={preset}")
        data = build.split(trajectories(), chosen)
        settings = build.pretrain_config(chosen, data)
        point = Point(settings.model.width, settings.batch_size, settings.model.window)
        dtype = settings.model.compute_dtype
        name = workloads.row_name("presets", f"preset {preset}", dtype, **point._asdict())
        name |= {"whole_training_steps": chosen.steps}
        prepared = functools.cache(functools.partial(prepare, settings))
        groups.append([functools.partial(steps, prepared, config.training.steps, name)])
    yield workloads.Workload("presets", groups)


def seed_section(config: config_dict.ConfigDict, matmuls: timing.Matmuls) -> Workloads:
    """Time training steps of a preset with one seed and with several in one program."""
    preset = "small" if jax.default_backend() == "cpu" else "base"
    chosen = config_files.load(f"configs/pretrain.py:hopper-medium,preset={preset}")
    settings = build.pretrain_config(chosen, build.split(trajectories(), chosen))
    prepared = functools.cache(functools.partial(prepare, settings))
    name = workloads.row_name("seeds", f"preset {preset}", settings.model.compute_dtype)
    count = config.training.steps
    group = [
        functools.partial(seed_steps, prepared, count, name | {"seeds": seeds})
        for seeds in dict.fromkeys((1, *config.seeds))
    ]
    yield workloads.Workload("seeds", [group])


def seed_steps(prepared: Any, count: int, name: dict[str, Any]) -> workloads.Program:
    """Compile a call of `count` training steps of all seeds."""
    settings, network, data, stats, compiled = prepared()
    seeds, key = name["seeds"], jax.random.key(0)
    if seeds > 1:
        training = pretrain.make_training(settings, network, stats)
        compiled = program.make_group_program([training] * seeds)
        key = jax.random.split(key, seeds)
    call, cost = compile_program(compiled, data, count, key)
    counted = seeds * operations.training_step(settings.model, settings.batch_size)
    return workloads.Program(name, call, counted, steps=count, cost=cost)


def plain_settings(point: Point, encoder_layers: int, dtype: str) -> PretrainConfig:
    """Choose the settings of a step without dropout, under random autoregressive masks."""
    sizes = {"window": point.window, "width": point.width, "encoder_layers": encoder_layers}
    return PretrainConfig(
        model=ModelConfig(MODALITIES, dropout=0.0, compute_dtype=dtype, **sizes),
        masks=MaskConfig(),
        optim=OptimConfig(total_steps=1000, warmup_steps=10),
        batch_size=point.batch_size,
    )


class Prepared(NamedTuple):
    """A training program with random data."""

    settings: PretrainConfig
    network: model.Model
    data: dataset.Dataset
    stats: Mapping[str, Any]
    program: program.Program


def prepare(settings: PretrainConfig) -> Prepared:
    """Build a training program and its data."""
    data = dataset.make_dataset(trajectories(), settings.model.window)
    network, stats = model.make_model(settings.model), dataset.compute_stats(data)
    training = pretrain.make_training(settings, network, stats)
    return Prepared(settings, network, data, stats, program.make_program(training))


def steps(prepared: Any, count: int, name: dict[str, Any]) -> workloads.Program:
    """Compile a call of `count` training steps."""
    settings, _, data, _, compiled = prepared()
    call, cost = compile_program(compiled, data, count)
    counted = operations.training_step(settings.model, settings.batch_size)
    return workloads.Program(name, call, counted, steps=count, cost=cost)


def compile_program(
    compiled: program.Program, data: Any, count: int, key: jax.Array | None = None
) -> tuple[workloads.Call, workloads.Cost]:
    """Compile a call of `run`; each call continues where the last one ended."""

    def run(state: Any, data: Any) -> Any:
        return compiled.run(state, data, count)[0]

    state = compiled.init(jax.random.key(0) if key is None else key)
    return workloads.compile_updates(run, state, data)


def sampling(prepared: Any, name: dict[str, Any]) -> workloads.Program:
    """Compile the sampling of one batch of windows."""
    settings, _, data, _, _ = prepared()

    def sample(key: jax.Array, data: dataset.Dataset) -> dataset.Windows:
        return dataset.sample_windows(key, data, settings.batch_size, settings.model.window)

    call, cost = workloads.compile_call(sample, (jax.random.key(1), data))
    return workloads.Program(name, call, cost=cost)


@functools.cache
def trajectories() -> Trajectories:
    """Make random episodes; the values do not affect the time."""
    rng = np.random.default_rng(0)
    episodes, length = 100, 500
    total = episodes * length
    dims = {m.name: m.features for m in MODALITIES}
    bound = (1.0,) * dims["actions"]
    return Trajectories(
        observations=rng.normal(size=(total, dims["states"])).astype(np.float32),
        actions=rng.uniform(-1, 1, (total, dims["actions"])).astype(np.float32),
        rewards=rng.normal(size=total).astype(np.float32),
        terminals=np.zeros(total, bool),
        lengths=np.full(episodes, length),
        final_observations=np.zeros((episodes, dims["states"]), np.float32),
        info=DataInfo("random", "bench", "Hopper-v5", LIMIT, tuple(-b for b in bound), bound),
    )
