"""The import program, with a stand-in for torch, which the tests do without."""

import contextlib
import pathlib
import pickle
import sys
import types

import jax
import numpy as np
import pytest

from experiments import import_checkpoint
from experiments.runtime import cli
from mtm_jax.agents import model_files, torch_import
from mtm_jax.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


class Tensor:
    """As much of a torch.Tensor as the program uses."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def float(self):
        return Tensor(self.array.astype(np.float32))

    def numpy(self):
        return self.array


@pytest.fixture
def arrays():
    with np.load(GOLDEN / "mtm_state_dict.npz") as stored:
        return dict(stored)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "hopper_140000.pt"
    path.write_bytes(b"read by the stand-in")
    return path


@pytest.fixture
def torch_holding(monkeypatch):
    """Return a function that puts a torch in place whose `load` gives an object, or raises one."""

    def install(loaded):
        def load(path, map_location, weights_only):
            assert weights_only is True
            assert map_location == "cpu"
            if isinstance(loaded, Exception):
                raise loaded
            return loaded

        torch = types.ModuleType("torch")
        torch.load = load
        torch.serialization = types.SimpleNamespace(safe_globals=contextlib.nullcontext)
        monkeypatch.setitem(sys.modules, "torch", torch)

    return install


def run(*argv):
    cli.run(import_checkpoint.main, argv=import_checkpoint.spell_out([str(a) for a in argv]))


@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_a_checkpoint_becomes_a_model_folder(arrays, file, tmp_path, torch_holding, key):
    state = {name: Tensor(array.astype(np.float64)) for name, array in arrays.items()}
    torch_holding({key: state, "step": 7, "eval_max": {"a": np.float64(1.0)}} if key else state)
    run(file, tmp_path / "out")
    config, params = model_files.load_model(tmp_path / "out")
    expected_config, expected = torch_import.from_torch_state_dict(arrays)
    assert config == expected_config
    assert all(map(np.array_equal, jax.tree.leaves(params), jax.tree.leaves(expected)))


def test_positions_and_flags_say_the_same():
    spelled = import_checkpoint.spell_out(["a.pt", "b", "--config.heads=2"])
    assert spelled == ["--config.file=a.pt", "--config.out=b", "--config.heads=2"]
    assert import_checkpoint.spell_out(["--config.file=a.pt"]) == ["--config.file=a.pt"]


def test_keys_override_what_no_parameter_tells(arrays, file, tmp_path, torch_holding):
    del arrays["pos_embed"]
    torch_holding({name: Tensor(array) for name, array in arrays.items()})
    run(file, tmp_path / "out", "--config.heads=2", "--config.window=6")
    config, _ = model_files.load_model(tmp_path / "out")
    assert (config.heads, config.window) == (2, 6)


def assert_refused(capsys, *argv, message):
    with pytest.raises(SystemExit) as stop:
        run(*argv)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_without_torch_the_user_is_told_to_install_it(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert_refused(capsys, file, tmp_path / "out", message="pip install torch")


def test_a_missing_file_is_named(tmp_path, torch_holding, capsys):
    torch_holding({})
    assert_refused(capsys, tmp_path / "no.pt", tmp_path / "out", message="no.pt")


@pytest.mark.parametrize("argv", [[], ["--config.file=a.pt"], ["--config.out=b"]])
def test_file_and_folder_must_both_be_given(capsys, argv):
    assert_refused(capsys, *argv, message="FILE.pt OUT")


@pytest.mark.parametrize("error", [pickle.UnpicklingError("\x1bLoad\nfailed"), RuntimeError()])
def test_a_file_that_is_no_checkpoint_is_refused(file, tmp_path, torch_holding, capsys, error):
    torch_holding(error)
    assert_refused(capsys, file, tmp_path / "out", message=f"{file} is not a PyTorch file")
    assert not (tmp_path / "out").exists()


def test_something_that_is_not_a_tensor_is_named(file, torch_holding):
    torch_holding({"model": {"weight": 3}})
    with pytest.raises(UserError, match="'weight' is a int"):
        import_checkpoint.read_state_dict(str(file))
