"""Notebooks run from top to bottom, and what they show is true."""

import json
import os
import subprocess
import sys

import pytest


def cells(path):
    book = json.loads(path.read_text())
    return ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]


SHOWN = """
import json
mean = {"states": float(new_states.std()), "actions": float(new_actions.std())}
print(json.dumps([[name, float(e), mean[m]] for (name, m), e in errors.items()]))
"""


@pytest.mark.slow
def test_sinusoids_are_inpainted_under_every_mask(root, tmp_path):
    script = tmp_path / "sinusoid.py"
    script.write_text("\n".join([*cells(root / "notebooks" / "sinusoid.ipynb"), SHOWN]))
    # As users run it: the tests' flags of XLA compile fast and compute slowly.
    env = os.environ | {"MPLBACKEND": "Agg", "XLA_FLAGS": "", "PYTHONPATH": str(root)}
    said = subprocess.run(
        [sys.executable, script], env=env, cwd=root, capture_output=True, text=True, check=True
    )
    found = json.loads(said.stdout.splitlines()[-1])
    assert len(found) >= 4
    for name, error, mean in found:
        assert (error > 0.9 * mean) if name == "nothing at all" else (error < 0.6 * mean), name


def test_notebooks_keep_their_pictures(root):
    (path,) = (root / "notebooks").glob("*.ipynb")
    assert path.stat().st_size < 500_000
    outputs = [o for c in json.loads(path.read_text())["cells"] for o in c.get("outputs", ())]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 2
