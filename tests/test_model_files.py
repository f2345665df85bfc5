"""A model alone on disk."""

import jax
import numpy as np
import pytest

from mtm_jax import model, model_files
from mtm_jax.config import ModelConfig
from mtm_jax.errors import UserError
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
