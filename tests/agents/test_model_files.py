"""A model alone on disk."""

import json
import zipfile

import jax
import numpy as np
import pytest

from mtm_jax.agents import model_files
from mtm_jax.config import ModelConfig
from mtm_jax.errors import UserError
from mtm_jax.models import trajectory_model as model
from mtm_jax.types import ModalitySpec

CONFIG = ModelConfig(
    (ModalitySpec("states", 4, 2, "categorical"), ModalitySpec("actions", 2, head="tanh_normal")),
    window=2,
    width=4,
    heads=2,
    compute_dtype="bfloat16",
)


@pytest.fixture(scope="module")
def params():
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.make_model(CONFIG).init, jax.random.key(0))
    return jax.tree.map(lambda s: random.normal(size=s.shape).astype(s.dtype), shapes)


def test_a_model_round_trips_bit_for_bit(tmp_path, params):
    model_files.save_model(tmp_path / "new" / "model", CONFIG, params)
    config, found = model_files.load_model(tmp_path / "new" / "model")
    assert config == CONFIG
    assert jax.tree.structure(found) == jax.tree.structure(params)
    assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(params)))


def test_a_failed_write_leaves_nothing_behind(tmp_path, params, monkeypatch):
    def full(*args, **arrays):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        model_files.save_model(tmp_path / "model", CONFIG, params)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_never_overwritten(tmp_path, params):
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="exists already"):
        model_files.save_model(tmp_path / "model", CONFIG, params)
    assert not list((tmp_path / "model").iterdir())


@pytest.mark.parametrize("missing", [model_files.CONFIG_FILE, model_files.PARAMS_FILE])
def test_a_folder_without_a_model_is_refused(tmp_path, params, missing):
    model_files.save_model(tmp_path / "model", CONFIG, params)
    (tmp_path / "model" / missing).unlink()
    with pytest.raises(UserError, match=missing):
        model_files.load_model(tmp_path / "model")


@pytest.fixture
def folder(tmp_path, params):
    model_files.save_model(tmp_path / "model", CONFIG, params)
    return tmp_path / "model"


def assert_refused(folder, message):
    with pytest.raises(UserError, match=message) as refused:
        model_files.load_model(folder)
    assert str(refused.value).startswith(f"{folder} holds no model (")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:20], r"model\.json is wrong"),
        (lambda text: "[]", r"model\.json is wrong"),
        (lambda text: "{}", r"model\.json lacks 'modalities'"),
        (lambda text: text.replace('"window"', '"windows"'), r"wrong: .*'windows'"),
        (lambda text: text.replace('"heads": 2', '"heads": "2"'), r"model\.json is wrong"),
        (lambda text: text.replace('"heads": 2', '"heads": 0'), "model heads is 0"),
        (lambda text: text.replace('"features": 4', '"feature": 4'), r"wrong: .*'feature'"),
    ],
)
def test_a_wrong_configuration_is_named(folder, change, message):
    text = (folder / model_files.CONFIG_FILE).read_text()
    assert change(text) != text
    (folder / model_files.CONFIG_FILE).write_text(change(text))
    assert_refused(folder, message)


@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"a" * 99])
def test_a_damaged_archive_is_refused(folder, change):
    path = folder / model_files.PARAMS_FILE
    path.write_bytes(change(path.read_bytes()))
    assert_refused(folder, r"params\.npz is damaged")


def test_a_changed_byte_in_an_array_is_noticed(folder):
    path = folder / model_files.PARAMS_FILE
    data = bytearray(path.read_bytes())
    data[data.index(b"NUMPY") + 130] ^= 255  # behind the 128 bytes of its header
    path.write_bytes(data)
    assert_refused(folder, r"params\.npz is damaged: .*Bad CRC")


def test_an_array_alone_or_another_archive_is_refused(folder):
    path = folder / model_files.PARAMS_FILE
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert_refused(folder, r"params\.npz is damaged")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "text")
    assert_refused(folder, r"params\.npz is damaged")


def test_objects_are_never_unpickled(folder):
    np.savez(folder / model_files.PARAMS_FILE, a=np.array([{}], dtype=object))
    assert_refused(folder, "allow_pickle=False")


def change_arrays(folder, change):
    path = folder / model_files.PARAMS_FILE
    with np.load(path) as arrays:
        flat = {name: arrays[name] for name in arrays.files}
    np.savez(path, **change(flat))
    return sorted(flat)[0]


def test_arrays_that_do_not_fit_the_configuration_are_named(folder):
    path = folder / model_files.CONFIG_FILE
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"width": 8}))
    assert_refused(
        folder, r"arrays differ .* the first is .*: float32 \(.*4.*\) in params.*8.*by model"
    )


def test_a_missing_array_is_named(folder):
    first = change_arrays(folder, lambda flat: {k: flat[k] for k in sorted(flat)[1:]})
    assert_refused(folder, rf"1 arrays differ .* the first is {first}: missing in params")


def test_an_array_too_many_is_named(folder):
    change_arrays(folder, lambda flat: flat | {"zzz": np.zeros(2)})
    assert_refused(folder, r"the first is zzz: float32 \(2,\) in params\.npz, none by model\.json")


def test_an_array_of_another_type_is_named(folder):
    first = change_arrays(folder, lambda flat: {k: v.astype(int) for k, v in flat.items()})
    assert_refused(folder, rf"the first is {first}: int32 .* float32")
