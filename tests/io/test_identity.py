"""A checkpoint is of one step of one run, and lies where that says."""

import json
import os
import shutil

import numpy as np
import pytest

from mtm_jax.errors import UserError
from mtm_jax.io import checkpoint, manifest, step_folders

STATE = {"w": np.arange(3, dtype=np.float32)}


def make(folder, *steps):
    checkpoints = checkpoint.Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, {"w": STATE["w"] + step}, {"w": STATE["w"] + step}, {})
    return folder


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Two runs with checkpoints of the same steps."""
    folder = tmp_path_factory.mktemp("runs")
    make(folder / "one", 5, 10)
    make(folder / "other", 5, 10)
    return folder


@pytest.fixture
def runs(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "runs")
    return tmp_path / "runs"


def newest(folder, use_older=False):
    checkpoints = checkpoint.Checkpoints(folder)
    return checkpoints.newest(lambda s: (s, checkpoints.restore_train(s, STATE)), use_older)


def refusal(folder):
    """What is said of the newest checkpoint, which every way of reading refuses."""
    checkpoints = checkpoint.Checkpoints(folder, read_only=True)
    step = checkpoints.steps()[-1]
    for read in (checkpoints.restore_meta, checkpoints.restore_model):
        with pytest.raises(manifest.Misplaced):
            read(step)
    with pytest.raises(manifest.Misplaced) as refused:
        newest(folder)
    return str(refused.value)


NO_STEPS = ("0010", "+10", "-10", " 10", "10 ", "1_0", "１０", "१०", "10.0", "1e1")
NO_STEPS += ("10.orbax-checkpoint-tmp-7", "10-copy")


@pytest.mark.parametrize("name", NO_STEPS)
def test_a_folder_of_another_name_is_no_step(runs, name):
    folder = runs / "one"
    os.replace(folder / "checkpoints" / "10", folder / "checkpoints" / name)
    assert checkpoint.Checkpoints(folder, read_only=True).steps() == [5]
    assert newest(folder)[0] == 5


def test_a_renamed_checkpoint_is_refused_by_its_step(runs):
    folder = runs / "one"
    os.replace(folder / "checkpoints" / "10", folder / "checkpoints" / "20")
    said = refusal(folder)
    assert "checkpoints/20 is of step 10: it was renamed" in said
    assert "newest good one is of step 5" in said and "sets the misplaced one aside" in said
    assert "damaged" not in said and "delete" not in said
    step, found = newest(folder, use_older=True)
    assert step == 5 and (found["w"] == STATE["w"] + 5).all()
    assert [p.name for p in (folder / "damaged").iterdir()] == ["20"]


def test_swapped_checkpoints_are_refused_and_none_is_to_be_deleted(runs):
    folder = runs / "one" / "checkpoints"
    for old, new in (("5", "x"), ("10", "5"), ("x", "10")):
        os.replace(folder / old, folder / new)
    said = refusal(runs / "one")
    assert "checkpoints/10 is of step 5" in said and "delete" not in said


def test_a_checkpoint_of_another_run_is_refused_by_its_run(runs):
    one, other = runs / "one", runs / "other"
    shutil.rmtree(one / "checkpoints" / "10")
    shutil.copytree(other / "checkpoints" / "10", one / "checkpoints" / "10")
    said = refusal(one)
    assert "checkpoints/10 is of another run" in said
    for run in (one, other):
        assert repr(step_folders.read_run_id(run)) in said


def test_all_checkpoints_of_another_run_are_refused(runs):
    shutil.rmtree(runs / "one" / "checkpoints")
    shutil.copytree(runs / "other" / "checkpoints", runs / "one" / "checkpoints")
    assert "is of another run" in refusal(runs / "one")
    (runs / "other" / "run_id").unlink()
    assert "is missing; put back" in refusal(runs / "other")


def test_a_run_that_is_copied_or_moved_as_a_whole_stays_what_it_is(runs, tmp_path):
    shutil.copytree(runs / "one", tmp_path / "copy")
    assert newest(tmp_path / "copy")[0] == 10
    make(tmp_path / "copy", 15)
    assert newest(tmp_path / "copy")[0] == 15


def test_a_damaged_one_beside_a_misplaced_one_is_no_reason_to_delete_both(runs):
    folder = runs / "one" / "checkpoints"
    os.replace(folder / "5", folder / "6")
    (folder / "10" / "meta" / "metadata").write_text("{")
    with pytest.raises(UserError, match="checkpoints/6 is of step 5") as refused:
        newest(runs / "one")
    assert "delete" not in str(refused.value)


def edit(folder, change):
    path = folder / "checkpoints" / "10" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta["digests"].pop("meta"),
        lambda meta: (meta["digests"].pop("meta"), meta.update(format_version=1)),
        lambda meta: (meta["digests"].pop("meta"), meta.update(step=10.0)),
        lambda meta: meta["digests"].update(meta=None),
    ],
    ids=["digest", "version 1", "step", "null"],
)
def test_a_manifest_without_its_own_digest_is_not_believed(runs, change):
    edit(runs / "one", change)
    with pytest.raises(manifest.Damaged, match="its metadata do not match their digest"):
        checkpoint.Checkpoints(runs / "one").restore_meta(10)


def test_checkpoints_of_the_first_format_are_still_held_to_their_step(runs, root):
    import zipfile

    with zipfile.ZipFile(root / "tests" / "fixtures" / "run_v1.zip") as archive:
        archive.extractall(runs / "first")
    assert checkpoint.Checkpoints(runs / "first").restore_meta(2)["step"] == 2
    os.replace(runs / "first" / "checkpoints" / "2", runs / "first" / "checkpoints" / "3")
    assert "checkpoints/3 is of step 2" in refusal_of_meta(runs / "first", 3)


def refusal_of_meta(folder, step):
    with pytest.raises(manifest.Misplaced) as refused:
        checkpoint.Checkpoints(folder).restore_meta(step)
    return str(refused.value)
