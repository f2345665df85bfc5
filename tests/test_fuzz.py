"""Files of any content are read, or refused by a `UserError`: readers raise nothing else.

Contents are random bytes, and valid files in which pieces are replaced, inserted or removed.
"""

import json
import shutil
import zipfile

import h5py
import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from experiments.runtime import runs
from mtm_jax.agents import model_files
from mtm_jax.config import ModelConfig
from mtm_jax.data import info as data_info
from mtm_jax.data import own
from mtm_jax.data.builtin import ladders
from mtm_jax.data.d4rl import reader as d4rl
from mtm_jax.data.exorl import reader as exorl
from mtm_jax.data.minari import reader as minari
from mtm_jax.data.minari import writer as minari_writer
from mtm_jax.data.robomimic import reader as robomimic
from mtm_jax.envs import registry
from mtm_jax.errors import UserError
from mtm_jax.io import records
from mtm_jax.models import trajectory_model as model
from mtm_jax.training import dataset
from mtm_jax.types import ModalitySpec, Trajectories

HOPPER = registry.ENVS["hopper"]
CASES = hypothesis.settings(
    max_examples=60,
    deadline=None,  # a busy machine is no failure
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
MODEL = ModelConfig((ModalitySpec("states", 2), ModalitySpec("actions", 2)), 2, 4, 2, 1)
# Kind -> the file that is changed, and what reads it or its folder.
READERS = {
    "own.npz": ("own.npz", own.read),
    "hopper.hdf5": ("hopper.hdf5", d4rl.read),
    "lift.hdf5": ("lift.hdf5", robomimic.read),
    "minari metadata": ("minari/data/metadata.json", lambda path: minari.read(path.parents[1])),
    "minari data": ("minari/data/main_data.hdf5", lambda path: minari.read(path.parents[1])),
    "exorl": ("walker_run/episode_000000_3.npz", lambda path: exorl.read(path.parent)),
    "exorl archive": ("walker_run.zip", exorl.read),
    "jsonl": ("rows.jsonl", records.read_jsonl),
    "model.json": ("model/model.json", lambda path: model_files.load_model(path.parent)),
    "params.npz": ("model/params.npz", lambda path: model_files.load_model(path.parent)),
    "config.json": ("config.json", lambda path: runs.read_pretraining(path.parent)),
    "ladder.json": ("actors/ladder.json", lambda path: ladders.load(path.parent, HOPPER)),
    "actor": ("actors/a.npz", lambda path: ladders.load(path.parent, HOPPER)),
}


def arrays(observed, acted):
    random = np.random.default_rng(0)
    return {
        "observations": random.normal(size=(9, observed)).astype(np.float32),
        "actions": np.tanh(random.normal(size=(9, acted))).astype(np.float32),
        "rewards": np.ones(9, np.float32),
        "terminals": np.arange(9) == 3,
    }


def write_hdf5(folder):
    timeouts = np.arange(9) == 8
    with h5py.File(folder / "hopper.hdf5", "w") as file:
        for name, array in (arrays(11, 3) | {"timeouts": timeouts}).items():
            file[name] = array
    with h5py.File(folder / "lift.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift"})
        sizes = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}
        for name, size in sizes.items():
            demo[f"obs/{name}"] = np.zeros((9, size))
        demo["actions"], demo["rewards"] = np.zeros((9, 7)), np.zeros(9)
        demo["dones"] = np.zeros(9)
        demo.attrs["num_samples"] = 9


def write_minari(folder):
    info = data_info.of_env(HOPPER, HOPPER.builtin_id, "hopper-medium", "builtin")
    lengths = np.array([4, 5])
    held = Trajectories(
        **arrays(11, 3), lengths=lengths, final_observations=np.zeros((2, 11)), info=info
    )
    (folder / "minari").mkdir()
    minari_writer.write_files(held, "mujoco/hopper/medium-v0", folder / "minari")
    metadata = folder / "minari/data/metadata.json"
    plain = json.loads(metadata.read_text())
    plain.pop("sha256")  # it would notice everything
    metadata.write_text(json.dumps(plain))


def write_exorl(folder):
    (folder / "walker_run").mkdir()
    episode = {"observation": np.zeros((4, 24)), "action": np.zeros((4, 6)), "discount": np.ones(4)}
    path = folder / "walker_run/episode_000000_3.npz"
    np.savez(path, physics=np.zeros((4, 18)), **episode)
    with zipfile.ZipFile(folder / "walker_run.zip", "w") as archive:
        archive.write(path, path.name)


def write_actors(folder):
    (folder / "actors").mkdir()
    shapes = [(11, 4), (4, 4), (4, 6)]
    layers = {f"layer_{k}/kernel": np.zeros(shape) for k, shape in enumerate(shapes)}
    layers |= {f"layer_{k}/bias": np.zeros(shape[1]) for k, shape in enumerate(shapes)}
    np.savez(folder / "actors/a.npz", **layers)
    index = {"env_id": HOPPER.builtin_id, "ladder": [{"file": "a.npz", "step": 5}]}
    index |= {"medium": "a.npz", "expert": "a.npz"}
    (folder / "actors/ladder.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """A folder with a valid file of every kind."""
    folder = tmp_path_factory.mktemp("valid")
    np.savez_compressed(folder / "own.npz", **arrays(3, 2))
    write_hdf5(folder)
    write_minari(folder)
    write_exorl(folder)
    write_actors(folder)
    (folder / "rows.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    params = jax.eval_shape(model.make_model(MODEL).init, jax.random.key(0))
    params = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), params)
    model_files.save_model(folder / "model", MODEL, params)
    config = dict.fromkeys(runs.PRETRAINING_KEYS, 1)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def copied(valid, tmp_path):
    shutil.copytree(valid, tmp_path / "files")
    return tmp_path / "files"


@st.composite
def changed(draw, content):
    """Replace, insert or remove pieces of a file."""
    edits = st.tuples(st.integers(0, len(content)), st.integers(0, 8), st.binary(max_size=8))
    for at, removed, inserted in draw(st.lists(edits, min_size=1, max_size=4)):
        content = content[:at] + inserted + content[at + removed :]
    return content


@pytest.mark.parametrize("kind", READERS)
def test_a_reader_refuses_or_reads(kind, copied):
    file, read = READERS[kind]
    path = copied / file
    original = path.read_bytes()
    read(path)  # it is valid

    @CASES
    @hypothesis.given(st.one_of(st.binary(max_size=60), changed(original)))
    def refuses_or_reads(content):
        path.write_bytes(content)
        try:
            read(path)
        except UserError as error:
            assert str(error)

    refuses_or_reads()


def test_what_is_read_of_a_changed_file_is_whole(copied):
    """Whatever passes a reader can be trained on: shapes agree and numbers are finite."""
    path = copied / "own.npz"
    original = path.read_bytes()

    @CASES
    @hypothesis.given(changed(original))
    def whole(content):
        path.write_bytes(content)
        try:
            found = own.read(path)
        except UserError:
            return
        dataset.make_dataset(found, 1)
        assert np.isfinite(found.observations).all() and np.isfinite(found.actions).all()

    whole()
