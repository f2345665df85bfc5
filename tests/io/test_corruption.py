"""A checkpoint that was changed at a random place is refused in a sentence, or gives what it held.

Bytes are changed in the files of a small critic: in half of the cases of any file, so that small
ones get their share, in the others of any byte.
"""

import jax
import numpy as np
import pytest

from mtm_jax.config import CriticConfig
from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, trees
from mtm_jax.training import iql

STEP = 3
CASES = {"byte": 140, "block": 60, "cut": 30}


def make_state(seed=0):
    config = CriticConfig(hidden=(3,), members=1, total_steps=10)
    return iql.init_state(jax.random.key(seed), config, 2, 1)


def bits(tree):
    """What a tree holds: names, types, shapes and bytes."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaf = np.asarray(leaf)
        found[jax.tree_util.keystr(path)] = (str(leaf.dtype), leaf.shape, leaf.tobytes())
    return found


class Stored:
    """A checkpoint on disk whose files are changed and put back."""

    def __init__(self, folder):
        self.folder, self.like = folder, make_state(seed=1)
        state = make_state()
        model = {"params": {"q": state.q, "v": state.v}}
        checkpoint.Checkpoints(folder).save(STEP, model, state, {"note": "small"})
        self.files = {f: f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
        self.filled = [f for f, content in self.files.items() if content]
        self.sizes = np.array([len(self.files[f]) for f in self.filled])
        self.held = self.read()

    def read(self):
        checkpoints = checkpoint.Checkpoints(self.folder, read_only=True)
        assert checkpoints.steps() == [STEP]  # it is never taken for a run that has saved nothing
        meta = checkpoints.restore_meta(STEP)
        model = bits(checkpoints.restore_model(STEP))
        return meta, model, bits(checkpoints.restore_train(STEP, self.like))

    def choose(self, random):
        weights = None if random.random() < 0.5 else self.sizes / self.sizes.sum()
        path = self.filled[random.choice(len(self.filled), p=weights)]
        return path, bytearray(self.files[path]), int(random.integers(len(self.files[path])))

    def is_refused(self, path, content):
        """Whether the checkpoint with one other file is refused; if not, it holds what it held."""
        path.write_bytes(content)
        try:
            found = self.read()
        except UserError as error:
            assert "\n" not in str(error) and str(self.folder) in str(error)
            return True
        finally:
            path.write_bytes(self.files[path])
        assert found == self.held, f"what was changed in {path} is not noticed"
        return False


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return Stored(tmp_path_factory.mktemp("run"))


def change(kind, content, at, random):
    if kind == "cut":
        return content[:at]
    size = 1 if kind == "byte" else 64
    old = np.frombuffer(content[at : at + size], np.uint8)
    content[at : at + size] = (old ^ random.integers(1, 256, len(old), np.uint8)).tobytes()
    return content


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_damage_is_refused_or_changes_nothing(stored, kind, capfd):
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(CASES[kind]):
        path, content, at = stored.choose(random)
        refused += stored.is_refused(path, change(kind, content, at, random))
    assert refused > CASES[kind] // 3
    assert stored.read() == stored.held  # every file was put back
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "change", [lambda x: x.view(np.int32), lambda x: x.reshape(-1, 2)], ids=["type", "shape"]
)
def test_equal_bytes_of_another_type_or_shape_are_refused(tmp_path, monkeypatch, change):
    saved = {"kernel": np.arange(8, dtype=np.float32).reshape(2, 4)}
    honest = trees.kinds(saved)
    monkeypatch.setattr(trees, "kinds", lambda tree: honest)
    checkpoint.Checkpoints(tmp_path).save(1, {"kernel": change(saved["kernel"])}, saved, {})
    monkeypatch.undo()
    with pytest.raises(checkpoint.Damaged, match="array model/kernel does not match"):
        checkpoint.Checkpoints(tmp_path).restore_model(1)
