"""Notebooks run from top to bottom, and what they show is true."""

import json

import pytest


def cells(path):
    book = json.loads(path.read_text())
    return ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]


@pytest.mark.slow
def test_sinusoids_are_inpainted_under_every_mask(root, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    left = {}
    for cell in cells(root / "notebooks" / "sinusoid.ipynb"):
        exec(compile(cell, "sinusoid.ipynb", "exec"), left)  # noqa: S102
    mean = {"states": left["new_states"].std(), "actions": left["new_actions"].std()}
    for (name, modality), error in left["errors"].items():
        blind = name == "nothing at all"
        assert (error > 0.9 * mean[modality]) if blind else (error < 0.6 * mean[modality]), name


def test_notebooks_keep_their_pictures(root):
    (path,) = (root / "notebooks").glob("*.ipynb")
    assert path.stat().st_size < 500_000
    outputs = [o for c in json.loads(path.read_text())["cells"] for o in c.get("outputs", ())]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 2
