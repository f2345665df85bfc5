"""What all tests share: the device, compiled programs, tiny runs, the root of the repository."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import logging
import os
import pathlib
import shutil
import tempfile

# Before jax is imported anywhere. Test processes side by side would fight over one accelerator's
# memory; set JAX_PLATFORMS to test on one.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# All processes of a run share what they compile, in a new folder: nothing in it is older than the
# run, and the cache of the user stays as it is.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mtm-jax-tests-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Tests compile more than they compute; the last flag halves what is left, where it is known.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false"
    * importlib.metadata.version("jaxlib").startswith("0.10."),
)

import hypothesis
import numpy as np
import pytest
import rich

# The first call of a jitted function compiles, which no deadline survives.
hypothesis.settings.register_profile("jit", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("jit")

# Files with the most to compute, longest first: begun last, one of them would keep one process
# busy while the others are done.
LONGEST = (
    *("planning/test_forward", "experiments/test_experiments", "training/test_pretrain"),
    *("training/test_groups", "agents/test_planner", "data/test_behaviours"),
    *("experiments/test_critic_experiment", "training/test_recipe", "training/test_iql"),
    *("planning/test_roles", "io/test_checkpoint", "experiments/test_plan_signal"),
    *("runtime/test_group_runs", "agents/test_agent", "experiments/test_ablation"),
    *("training/test_optim", "experiments/test_m3pc_offline", "training/test_sac"),
    *("models/test_packing", "training/test_dataset", "test_bad_input"),
)


def pytest_collection_modifyitems(items):
    """Put the longest files first."""
    places = {f"tests/{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


def pytest_unconfigure():
    """Remove what was compiled, once no process needs it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """Root of the repository."""
    return pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def drawn(monkeypatch):
    """Collect figures in place of writing them."""
    from mtm_jax.plots import style

    kept = []

    def keep(fig, path):
        kept.append(fig)
        return pathlib.Path(path)

    monkeypatch.setattr(style, "save", keep)
    return kept


@pytest.fixture
def clean_logging():
    """Give the "mtm_jax" logger back as it was."""
    logger = logging.getLogger("mtm_jax")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture(autouse=True)
def plain_console():
    """Give rich's console, which programs point at standard error, back to standard output."""
    yield
    if rich.get_console().stderr:
        rich.reconfigure(stderr=False)


@pytest.fixture
def empty_home(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder with no data anywhere that this package looks."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MTM_JAX_DATA", str(tmp_path / "cache"))
    for name in ("D4RL_DATASET_DIR", "MINARI_DATASETS_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Return a function that has a folder filled by the first process that asks for its name."""
    ours = tmp_path_factory.getbasetemp()
    shared = (ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours) / "shared"

    def get(name: str, fill) -> pathlib.Path:
        folder, complete = shared / name, shared / f"{name}.complete"
        with locked(shared / f"{name}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                fill(folder)
                complete.touch()
        return folder

    return get


@contextlib.contextmanager
def locked(path: pathlib.Path):
    """Keep other processes waiting for the same file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def hopper_file(made_once) -> pathlib.Path:
    """Synthetic hopper data in D4RL's layout: smooth, 12 episodes of 20 to 42 steps."""
    import h5py

    def write(folder):
        folder.mkdir()
        rng = np.random.default_rng(0)
        episodes = [smooth_episode(rng, 20 + 2 * e) for e in range(12)]
        with h5py.File(folder / "hopper_medium.hdf5", "w") as file:
            for name in episodes[0]:
                file[name] = np.concatenate([episode[name] for episode in episodes])

    return made_once("data", write) / "hopper_medium.hdf5"


def smooth_episode(rng: np.random.Generator, steps: int) -> dict[str, np.ndarray]:
    """Sinusoids with Hopper's dimensions; every third episode ends by itself."""
    t = np.arange(steps)[:, None] / 10.0
    states = np.sin(t * rng.uniform(0.5, 1.5, 11) + rng.uniform(0.0, 6.0, 11))
    actions = 0.8 * np.sin(states[:, :3] + states[:, 3:6])
    last = np.arange(steps) == steps - 1
    return {
        "observations": states.astype(np.float32),
        "actions": actions.astype(np.float32),
        "rewards": (1.0 + 0.5 * states[:, 0] - 0.1 * (actions**2).sum(-1)).astype(np.float32),
        "terminals": last & (steps % 3 == 0),
        "timeouts": last & (steps % 3 != 0),
    }


@pytest.fixture
def no_curves(monkeypatch):
    """Learning curves take longer to draw than tiny runs to train; that of `tiny_run` is drawn."""
    from mtm_jax.plots import learning_curves

    monkeypatch.setattr(learning_curves, "draw", lambda folder: None)


@pytest.fixture(scope="session")
def tiny_config(hopper_file):
    """Return a function that makes a configuration of seconds, with overrides "KEY=VALUE"."""
    from experiments.runtime import cli, machine

    tiny = (
        *(f"source={hopper_file}", "steps=30", "batch_size=16", "log_every=10", "save_every=10"),
        *("validate_every=1000", "model.width=16", "model.heads=2", "model.encoder_layers=1"),
        *("optim.learning_rate=1e-3", "optim.warmup_fraction=0.1"),
        *("eval.methods=('rcbc',)", "eval.episodes=2"),
    )

    def make(out: pathlib.Path, *overrides: str, name: str = "hopper-medium,preset=paper"):
        settings = dict(key.split("=", 1) for key in (*tiny, f"out={out}", *overrides))
        argv = [f"--config.{key}={value}" for key, value in settings.items()]
        argv.append(f"--config=configs/pretrain.py:{name}")
        return cli.parse(argv, "configs/pretrain.py")

    with pytest.MonkeyPatch.context() as patch:
        # A program that ends says how fast the machine is.
        patch.setattr(machine.matrix_product_rate, "__defaults__", (64, 1))
        yield make


@pytest.fixture(scope="session")
def tiny_run(made_once, tiny_config) -> pathlib.Path:
    """Folder of a finished pretraining run; tests that change it copy it first."""
    from experiments import pretrain

    return made_once("tiny", lambda folder: pretrain.main(tiny_config(folder)))


@pytest.fixture(scope="session")
def drawn_run(made_once, tiny_config) -> pathlib.Path:
    """Folder of a run with a checkpoint of parameters as they are drawn; copy it to change it."""
    import jax

    from experiments.runtime import runs
    from experiments.training import build
    from mtm_jax.agents import pretrained
    from mtm_jax.io import checkpoint
    from mtm_jax.models import trajectory_model as model

    def draw(folder):
        config = tiny_config(folder)
        runs.open_run(folder, runs.to_json(config))
        data = build.load_data(config)
        network = model.make_model(build.pretrain_config(config, data).model)
        params = jax.jit(network.init)(jax.random.key(0))
        drawn = pretrained.Pretrained(network, params, data.stats, data.info, data.returns, 4, 1)
        saved = {"params": params, "stats": data.stats}
        checkpoint.Checkpoints(folder).save(1, saved, {"step": 1}, pretrained.describe(drawn))

    return made_once("drawn", draw)
