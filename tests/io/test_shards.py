"""Shards come back as they were written, and what is damaged is named."""

import numpy as np
import pytest

from mtm_jax.io import checkpoint, shards


def rows(start, stop):
    return {"obs": np.arange(2 * start, 2 * stop).reshape(-1, 2), "done": np.arange(start, stop)}


@pytest.fixture
def written(tmp_path):
    files = shards.Shards(tmp_path / "replay")
    return files, [files.write(a, rows(a, b)) for a, b in ((0, 4), (4, 5), (5, 9))]


@pytest.mark.parametrize("start", [0, 2, 4, 5, 6, 8])
def test_rows_from_a_start_on_come_back(written, start):
    files, entries = written
    found = files.read(entries, start)
    for name, value in rows(start, 9).items():
        np.testing.assert_array_equal(found[name], value)
    assert files.read([], 0) == {}


def test_only_what_is_listed_is_kept(written):
    files, entries = written
    (files.folder / ".unfinished").write_text("")
    files.keep(entries[1:])
    assert {f.name for f in files.folder.iterdir()} == {e["file"] for e in entries[1:]}


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "elsewhere", "wrong entry"])
def test_damage_is_named(written, damage):
    files, entries = written
    path = files.folder / entries[1]["file"]
    content = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(content[:200] + bytes([255 - content[200]]) + content[201:])
    elif damage == "cut":
        path.write_bytes(content[:-7])
    elif damage == "gone":
        path.unlink()
    elif damage == "elsewhere":
        path.rename(files.folder.parent / path.name)
        entries[1]["file"] = f"../{path.name}"
    else:
        entries[1]["stop"] = "9"
    with pytest.raises(checkpoint.Damaged, match="000000000004|does not name a shard"):
        files.read(entries, 0)
    assert files.read(entries[2:], 5)
