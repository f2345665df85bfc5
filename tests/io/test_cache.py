"""The data folder that processes share: what is half done, who is first, and clocks that jump."""

import os
import shutil

import numpy as np
import pytest

from mtm_jax.errors import UserError
from mtm_jax.io import cache, checkpoint

DAY = 24 * 3600.0


def test_of_two_that_publish_the_first_counts(tmp_path):
    final = tmp_path / "data"
    with cache.staging(final) as one, cache.staging(final) as other:
        (one / "file").write_text("first")
        (other / "file").write_text("second")
        assert cache.publish(one, final)
        assert not cache.publish(other, final)
    assert (final / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [final]


def left_behind(folder, name, age):
    path = folder / name
    path.mkdir()
    modified = cache.time.time() - age
    os.utime(path, (modified, modified))
    return path


def test_what_nobody_continued_is_removed_and_other_work_stays(tmp_path):
    old = left_behind(tmp_path, ".staged-a", 2 * DAY), left_behind(tmp_path, ".partial-a", 15 * DAY)
    young = left_behind(tmp_path, ".staged-b", 0), left_behind(tmp_path, ".partial-b", 13 * DAY)
    with cache.staging(tmp_path / "data"):
        assert not any(path.exists() for path in old)
        assert all(path.exists() for path in young)


def test_a_clock_that_was_set_back_removes_nothing(tmp_path):
    ahead = [left_behind(tmp_path, name, -400 * DAY) for name in (".staged-a", ".partial-a")]
    with cache.staging(tmp_path / "data") as staged:
        (staged / "file").write_text("")
        assert cache.publish(staged, tmp_path / "data")
    assert all(path.exists() for path in ahead)


def test_work_that_another_process_removes_meanwhile_disturbs_nobody(tmp_path, monkeypatch):
    gone = left_behind(tmp_path, ".staged-a", 2 * DAY)
    remove = shutil.rmtree
    now = cache.time.time

    def late():
        remove(gone, ignore_errors=True)
        return now()

    monkeypatch.setattr(cache.time, "time", late)
    with cache.staging(tmp_path / "data") as staged:
        assert staged.is_dir()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), PermissionError(13, "No")]
)
def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(tmp_path, monkeypatch, error):
    def refuse(*args, **keys):
        raise error

    monkeypatch.setattr(cache.tempfile, "mkdtemp", refuse)
    sentence = rf"cannot write to the data folder .*\({error.strerror}\); set MTM_JAX_DATA"
    with pytest.raises(UserError, match=sentence), cache.staging(tmp_path / "data"):
        pass
    assert not list(tmp_path.iterdir())


def test_interrupted_work_is_found_again_by_its_origin_alone(tmp_path):
    final, origin = tmp_path / "data", {"steps": 5}
    with pytest.raises(KeyboardInterrupt), cache.partial(final, origin) as kept:
        kept.mkdir()
        raise KeyboardInterrupt
    with cache.partial(final, {"steps": 6}) as other:
        assert other != kept
    with cache.partial(final, origin) as again:
        assert again == kept and again.is_dir()
    assert not kept.exists()


def test_the_newest_checkpoint_is_told_by_its_step(tmp_path):
    state = {"a": np.zeros(1)}
    for step in (9, 10):
        checkpoint.Checkpoints(tmp_path).save(step, state, state, {})
    for path in (tmp_path / "checkpoints" / "10").rglob("*"):
        os.utime(path, (1.0, 1.0))  # written when the clock had been set back
    checkpoints = checkpoint.Checkpoints(tmp_path)
    assert checkpoints.steps() == [9, 10]
    assert checkpoints.newest(lambda step: step) == 10
