"""The layer law: a module imports lower levels or its own, and each library stays in its place."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Where every module of mtm_jax/ belongs; a name that ends in "." is a folder. Level 4 is the rim.
LEVELS = {
    0: {"types", "errors", "config"},
    1: {"masks", "tokens", "distributions", "returns", "losses", "optim"},
    2: {"networks", "transformer", "heads", "positions", "layout", "gathering", "model"}
    | {"critics", "queries"},
    3: {"accumulation", "dataset", "training", "objective", "held_out", "pretrain"}
    | {"iql", "finetune", "td3", "sac", "rnd"}
    | {"operations", "torch_import"}
    | {"baselines.", "planning."},
    4: {"actors", "agent", "cache", "checkpoint", "figures", "metrics", "model_files", "planner"}
    | {"policy"}
    | {"data_figures", "progress", "records", "results"}
    | {"critic_files", "manifest", "orbax_noise", "shards", "trees"}
    | {"imagination", "imagination_figures"}
    | {"report", "score_figures", "sharding", "statistics", "video", "data.", "envs."},
}
LINEN = {"networks", "transformer", "heads", "model", "critics"}
RIM_ONLY = {"gymnasium", "gymnasium_robotics", "mujoco", "minari", "h5py", "orbax", "matplotlib"}
RIM_ONLY |= {"rich", "imageio", "PIL", "tqdm", "dm_control", "huggingface_hub"}
IMPURE = {"os", "pathlib", "time", "datetime", "random", "io", "shutil", "subprocess", "logging"}
NEVER = {"ml_collections", "absl", "experiments", "configs", "tests"}
FORBIDDEN_NAMES = {"eval", "exec", "nan_to_num", "pmap", "PRNGKey"}
FORBIDDEN_MODULES = {"cloudpickle", "dill", "marshal", "shelve", "joblib", "yaml", "jsonpickle"}
FORBIDDEN_MODULES |= {"tarfile"}  # archives are read in place, by data.archives
# Calls that run what they are given, or unpack what would have to be checked before.
FORBIDDEN_CALLS = {("os", "system"), ("os", "popen"), ("shutil", "unpack_archive")}
FORBIDDEN_CALLS |= {("pandas", "read_pickle"), ("pd", "read_pickle"), ("subprocess", "getoutput")}
UNPACKING = {"extract", "extractall"}
# Keyword -> the only value that it may be given.
SAFE_VALUES = {"allow_pickle": False, "weights_only": True, "shell": False}
PICKLE_ERRORS = {"PickleError", "UnpicklingError"}  # other libraries raise them


def level_of(module: str) -> int | None:
    """Level of a module named inside mtm_jax, e.g. "planning.forward"; None where it has none."""
    folder = module.split(".")[0] + "."
    for level, names in LEVELS.items():
        if module in names or folder in names:
            return level
    return None


def imports(tree: ast.AST) -> set[str]:
    """Full names that are imported anywhere in a module, functions included."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def layer_problems(module: str, source: str) -> list[str]:
    """Say what a module of mtm_jax imports or calls that its level must not."""
    level, tree = level_of(module), ast.parse(source)
    if level is None:
        return [f"{module} has no level: place it in LEVELS of tests/test_layering.py"]
    problems = []
    for name in sorted(imports(tree)):
        reason = import_problem(module, level, name)
        if reason:
            problems.append(f"{module} (level {level}) imports {name}: {reason}")
    if level < 4 and any(is_call_of(node, "print") for node in ast.walk(tree)):
        problems.append(f"{module} (level {level}) prints")
    return problems


def import_problem(module: str, level: int, name: str) -> str | None:
    """Say why a module must not import `name`; None where it may."""
    top, _, rest = name.partition(".")
    if top == "":
        return "write imports from the root of the package"
    if top in NEVER:
        return "never inside mtm_jax"
    if top in RIM_ONLY | IMPURE and level < 4:
        return "only at level 4"
    if top == "flax" and level < 2 and not name.startswith("flax.struct"):
        return "below level 2 flax is good for struct only"
    if name.startswith("flax.linen") and module not in LINEN:
        return f"linen lives in {', '.join(sorted(LINEN))}"
    if top == "mtm_jax":
        return sibling_problem(level, rest)
    return None


def sibling_problem(level: int, imported: str) -> str | None:
    """Say why a level must not import `imported`, a module of mtm_jax or a symbol in one."""
    if imported == "":
        return "import the module that is needed"
    candidates = [imported, imported.rpartition(".")[0]]
    if imported in {"planning", "baselines", "data", "envs"}:
        candidates = [f"{imported}."]
    target = next((n for c in candidates if (n := level_of(c)) is not None), None)
    if target is None:
        return "it has no level"
    return f"that is level {target}" if target > level else None


def is_call_of(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def construct_problems(source: str) -> list[str]:
    """Name the constructs that this project does without."""
    tree = ast.parse(source)
    problems = [f"imports {n}" for n in imports(tree) if n.split(".")[0] in FORBIDDEN_MODULES]
    problems += [f"imports {n}" for n in imports(tree) if n.startswith("pickle.")]
    lines = [(node.lineno, node) for node in ast.walk(tree) if is_forbidden(node)]
    return problems + [f"line {line}: {ast.unparse(node)}" for line, node in lines]


def is_forbidden(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in FORBIDDEN_NAMES
    if isinstance(node, ast.Attribute):
        owner, name = ast.unparse(node.value), node.attr
        if owner == "pickle":
            return name not in PICKLE_ERRORS
        if (owner, name) in FORBIDDEN_CALLS or name in UNPACKING:
            return True
        return name in FORBIDDEN_NAMES - {"eval", "exec"}
    if isinstance(node, ast.ExceptHandler):
        return node.type is None
    if isinstance(node, ast.keyword) and node.arg in SAFE_VALUES:
        safe = SAFE_VALUES[node.arg]
        return not (isinstance(node.value, ast.Constant) and node.value.value is safe)
    return is_call_without(node, "np.load", "allow_pickle") or is_call_without(
        node, "torch.load", "weights_only"
    )


def is_call_without(node: ast.AST, function: str, keyword: str) -> bool:
    """Whether a call leaves a keyword to a default that another version may change."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != function:
        return False
    return keyword not in {k.arg for k in node.keywords}


def library_modules() -> list[tuple[str, pathlib.Path]]:
    """Every module of mtm_jax but its own __init__, as (name inside the package, file)."""
    package = ROOT / "mtm_jax"
    files = sorted(package.rglob("*.py"))
    names = [".".join(f.relative_to(package).with_suffix("").parts) for f in files]
    return [(n, f) for n, f in zip(names, files, strict=True) if n != "__init__"]


def test_modules_keep_their_level():
    modules = library_modules()
    assert len(modules) > 10
    problems = [p for name, file in modules for p in layer_problems(name, file.read_text())]
    assert not problems, "\n".join(problems)


def test_forbidden_constructs_are_absent():
    files = [f for d in ("mtm_jax", "experiments", "configs") for f in (ROOT / d).rglob("*.py")]
    problems = [
        f"{f.relative_to(ROOT)} {p}" for f in files for p in construct_problems(f.read_text())
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("masks", "from mtm_jax import model", "level 2"),
        ("masks", "from mtm_jax.planning import context", "level 3"),
        ("iql", "from mtm_jax import planning, data", "level 4"),
        ("config", "import mtm_jax.envs.registry", "level 4"),
        ("model", "from mtm_jax.training.dataset import Dataset", "level 3"),
        ("pretrain", "from flax import linen as nn", "linen lives in"),
        ("pretrain", "import flax.linen as nn", "linen lives in"),
        ("tokens", "import flax.traverse_util", "struct only"),
        ("planning.forward", "def f():\n    import gymnasium", "only at level 4"),
        ("sac", "import time", "only at level 4"),
        ("sac", "print(1)", "prints"),
        ("metrics", "from absl import flags", "never inside"),
        ("data.d4rl", "from ml_collections import config_dict", "never inside"),
        ("data.d4rl", "from . import sources", "from the root"),
        ("metrics", "from mtm_jax import nowhere", "no level"),
        ("utils", "", "place it in LEVELS"),
    ],
)
def test_a_breach_of_the_law_is_found(module, source, message):
    problems = layer_problems(module, source)
    assert problems and message in problems[0]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "from pickle import loads",
        "from cloudpickle import loads",
        "np.load(f, allow_pickle=True)",
        "eval('1')",
        "exec('1')",
        "jnp.nan_to_num(x)",
        "jax.pmap(f)",
        "jax.random.PRNGKey(0)",
        "os.system('ls')",
        "os.popen('ls')",
        "np.load(f)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "subprocess.run('ls', shell=True)",
        "import yaml\nyaml.load(f)",
        "import tarfile",
        "import shelve",
        "archive.extractall('.')",
        "archive.extract('a')",
        "shutil.unpack_archive('a.zip')",
        "try:\n    pass\nexcept:\n    pass",
    ],
)
def test_a_forbidden_construct_is_found(source):
    assert construct_problems(source)


def test_one_module_opens_archives():
    """It checks their members; no other one may read or unpack them."""
    names = [name for name, file in library_modules() if "ZipFile(" in file.read_text()]
    assert names == ["data.archives"]


@pytest.mark.parametrize(
    ("call", "module"),
    [
        (".savefig(", "mtm_jax/plots/figures.py"),
        ("mj_getState(", "mtm_jax/envs/simulator.py"),
        ("mj_setState(", "mtm_jax/envs/simulator.py"),
    ],
)
def test_one_module_does_it_for_all(call, module):
    files = [*(ROOT / "mtm_jax").rglob("*.py"), *(ROOT / "experiments").glob("*.py")]
    found = {str(p.relative_to(ROOT)) for p in files if call in p.read_text()}
    assert found == {module}


def test_lawful_code_passes():
    assert not layer_problems("model", "from flax import linen as nn\nfrom mtm_jax import networks")
    assert not layer_problems("data.d4rl", "import h5py\nfrom mtm_jax.envs import registry")
    assert not construct_problems("np.load(f, allow_pickle=False)\ntorch_model.eval()")
    assert not construct_problems("import pickle\ntry: f()\nexcept pickle.UnpicklingError: pass")


def test_importing_the_package_loads_no_simulator_and_no_plots():
    code = "import sys, mtm_jax; print(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    loaded = set(out.stdout.decode().split())
    assert "mtm_jax" in loaded
    assert not loaded & {"gymnasium", "mujoco", "minari", "h5py", "matplotlib", "ml_collections"}
