"""The README's example in Python runs as it is printed."""

import re
import runpy

RUN = "runs/pretrain/hopper-medium-m3pc-small-seed0"


def test_the_example_of_the_readme_runs(root, tiny_run, tmp_path):
    (example,) = re.findall(r"^```python\n(.*?)^```", (root / "README.md").read_text(), re.M | re.S)
    assert example.count(RUN) == 1
    script = tmp_path / "example.py"
    script.write_text(example.replace(RUN, str(tiny_run)))
    left = runpy.run_path(str(script))
    assert left["done"]
    assert left["future"].next_states.shape == (4, 11)
    assert left["future"].rewards.shape == left["future"].return_tokens.shape == (4,)
    assert left["actions"].shape == (3, 3)
    assert left["env"].action_space.contains(left["action"])
