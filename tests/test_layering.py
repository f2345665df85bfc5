"""The layer law: a module imports lower levels or its own, and each library stays in its place."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Each folder of mtm_jax/ with the folders that its modules may import; "" are the modules beside
# them, the vocabulary that all share.
FOLDERS = {
    "": set(),
    "io": {""},
    "models": {""},
    "training": {"", "models"},
    "planning": {"", "models"},
    "envs": {"", "io"},
    "data": {"", "io", "envs"},
    "agents": {"", "io", "envs", "data", "models", "training", "planning"},
    "plots": {"", "io", "envs", "data", "agents"},
}
# Folders of pure functions: no files, clocks, processes or printing.
PURE = {"", "models", "training", "planning"}
LINEN = {"networks", "transformer", "heads", "trajectory_model", "pruned", "critics"}
LINEN |= {"td3_networks"}  # of models/
LINEN_MODULES = {("models", name) for name in LINEN}
RIM_ONLY = {"gymnasium", "gymnasium_robotics", "mujoco", "minari", "h5py", "orbax", "matplotlib"}
RIM_ONLY |= {"rich", "imageio", "jinja2", "PIL", "tqdm", "dm_control", "huggingface_hub"}
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


def folder_of(module: str) -> str:
    """Folder of a module named inside mtm_jax: "planning.forward" is in "planning"."""
    return module.split(".")[0] if "." in module or module in FOLDERS else ""


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
    """Say what a module of mtm_jax imports or calls that its folder must not."""
    folder, tree = folder_of(module), ast.parse(source)
    if folder not in FOLDERS:
        return [f"{module}: {folder} is no folder of FOLDERS in tests/test_layering.py"]
    problems = []
    for name in sorted(imports(tree)):
        reason = import_problem(module, folder, name)
        if reason:
            problems.append(f"{module} imports {name}: {reason}")
    if folder in PURE and any(is_call_of(node, "print") for node in ast.walk(tree)):
        problems.append(f"{module} prints, and {folder or 'the vocabulary'} is pure")
    return problems


def import_problem(module: str, folder: str, name: str) -> str | None:
    """Say why a module must not import `name`; None where it may."""
    top, _, rest = name.partition(".")
    if top == "":
        return "write imports from the root of the package"
    if top in NEVER:
        return "never inside mtm_jax"
    if top in RIM_ONLY | IMPURE and folder in PURE:
        return f"{folder or 'the vocabulary'} is pure"
    if top == "flax" and folder == "" and not name.startswith("flax.struct"):
        return "the vocabulary takes flax for struct only"
    if name.startswith("flax.linen") and (folder, module.split(".")[-1]) not in LINEN_MODULES:
        return f"linen lives in models/: {', '.join(sorted(LINEN))}"
    if top == "mtm_jax":
        return sibling_problem(folder, rest)
    return None


def sibling_problem(folder: str, imported: str) -> str | None:
    """Say why a folder must not import `imported`, a module of mtm_jax or a symbol in one."""
    if imported == "":
        return "import the module that is needed"
    target = folder_of(imported) if imported.split(".")[0] in FOLDERS else ""
    if target not in {folder} | FOLDERS[folder]:
        return f"{folder or 'the vocabulary'} must not import {target}"
    return None


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Find circles of a graph, node -> nodes; one from each group that is tied together."""
    done, path, found = set(), [], []

    def visit(node: str) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            path.append(node)
            for after in sorted(graph.get(node, ())):
                visit(after)
            path.pop()
            done.add(node)

    for node in sorted(graph):
        visit(node)
    return found


def module_graph() -> dict[str, set[str]]:
    """Every module of the repository with the modules that it imports, anywhere in it."""
    files = [f for d in ("mtm_jax", "experiments", "configs") for f in (ROOT / d).rglob("*.py")]
    names = {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in files}
    graph = {}
    for name, file in names.items():
        if not name.endswith("__init__"):
            asked = imports(ast.parse(file.read_text()))
            graph[name] = {n for a in asked for n in (a, a.rpartition(".")[0]) if n in names}
    return graph


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


def test_modules_keep_the_law():
    modules = library_modules()
    assert len(modules) > 10
    problems = [p for name, file in modules for p in layer_problems(name, file.read_text())]
    assert not problems, "\n".join(problems)


def test_every_folder_of_the_law_exists_and_the_law_has_no_circle():
    folders = {p.parent.name for p in (ROOT / "mtm_jax").glob("*/__init__.py")}
    assert folders == FOLDERS.keys() - {""}
    assert not circles(FOLDERS)
    assert all((ROOT / "mtm_jax" / "models" / f"{name}.py").is_file() for name in LINEN)


def test_no_modules_import_each_other():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    assert not circles(module_graph())


def test_configurations_import_no_experiment():
    graph = module_graph()
    found = [
        name
        for name, asked in graph.items()
        if name.startswith("configs.") and any(a.startswith("experiments.") for a in asked)
    ]
    assert not found


def test_programs_are_commands():
    """`ls experiments/*.py` lists what a user can run; what they share is in folders."""
    programs = [p for p in (ROOT / "experiments").glob("*.py") if p.name != "__init__.py"]
    silent = [p.name for p in programs if 'if __name__ == "__main__":' not in p.read_text()]
    assert programs and not silent
    assert not [p.name for p in programs if not (ROOT / "configs" / p.name).is_file()]


def test_forbidden_constructs_are_absent():
    files = [f for d in ("mtm_jax", "experiments", "configs") for f in (ROOT / d).rglob("*.py")]
    problems = [
        f"{f.relative_to(ROOT)} {p}" for f in files for p in construct_problems(f.read_text())
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("masks", "from mtm_jax import models", "must not import models"),
        ("masks", "from mtm_jax.planning import context", "must not import planning"),
        ("training.iql", "from mtm_jax import planning, data", "must not import data"),
        ("config", "import mtm_jax.envs.registry", "must not import envs"),
        ("models.heads", "from mtm_jax.training import dataset", "must not import training"),
        ("io.cache", "def f():\n    from mtm_jax.agents import policy", "must not import agents"),
        ("training.pretrain", "from flax import linen as nn", "linen lives in"),
        ("training.pretrain", "import flax.linen as nn", "linen lives in"),
        ("tokens", "import flax.traverse_util", "struct only"),
        ("planning.forward", "def f():\n    import gymnasium", "is pure"),
        ("training.sac", "import time", "is pure"),
        ("training.sac", "print(1)", "prints"),
        ("io.metrics", "from absl import flags", "never inside"),
        ("data.own", "from ml_collections import config_dict", "never inside"),
        ("data.own", "from . import sources", "from the root"),
        ("utils.strings", "", "is no folder of FOLDERS"),
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
        (".savefig(", "mtm_jax/plots/style.py"),
        ("mj_getState(", "mtm_jax/envs/simulator.py"),
        ("mj_setState(", "mtm_jax/envs/simulator.py"),
    ],
)
def test_one_module_does_it_for_all(call, module):
    files = [*(ROOT / "mtm_jax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    found = {str(p.relative_to(ROOT)) for p in files if call in p.read_text()}
    assert found == {module}


def test_lawful_code_passes():
    assert not layer_problems(
        "models.heads", "from flax import linen\nfrom mtm_jax.models import layout"
    )
    assert not layer_problems("data.own", "import h5py\nfrom mtm_jax.envs import registry")
    assert not construct_problems("np.load(f, allow_pickle=False)\ntorch_model.eval()")
    assert not construct_problems("import pickle\ntry: f()\nexcept pickle.UnpicklingError: pass")


def test_importing_the_package_loads_no_simulator_and_no_plots():
    code = "import sys, mtm_jax; print(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    loaded = set(out.stdout.decode().split())
    assert "mtm_jax" in loaded
    assert not loaded & {"gymnasium", "mujoco", "minari", "h5py", "matplotlib", "ml_collections"}
