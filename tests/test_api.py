"""What `import mtm_jax` gives."""

import ast
import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest

import mtm_jax

PACKAGE = pathlib.Path(mtm_jax.__file__).parent
MODULES = sorted(p.relative_to(PACKAGE).with_suffix("") for p in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("name", mtm_jax.__all__)
def test_every_name_is_there_and_says_what_it_is(name):
    value = getattr(mtm_jax, name)
    assert inspect.isclass(value) or callable(value)
    assert inspect.getdoc(value)
    assert value.__module__.startswith("mtm_jax")


def test_the_list_of_names_is_sorted_and_complete():
    assert sorted(mtm_jax._HOME) == mtm_jax.__all__ == sorted(set(mtm_jax.__all__))
    assert set(dir(mtm_jax)) == {*mtm_jax.__all__, "__version__"}


def test_names_for_type_checkers_are_the_same():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    found = {}
    for node in block.body:
        for alias in node.names:
            home = node.module.removeprefix("mtm_jax.")
            renamed = f":{alias.name}" if alias.asname else ""
            found[alias.asname or alias.name] = home + renamed
    assert found == mtm_jax._HOME


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'mtm_jax' has no attribute 'Agnet'"):
        mtm_jax.Agnet  # noqa: B018


def test_importing_is_light():
    code = "import sys, mtm_jax; print('jax' in sys.modules, 'gymnasium' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert found.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_public_things_have_docstrings(path):
    parts = [part for part in path.parts if part != "__init__"]
    module = importlib.import_module(".".join(["mtm_jax", *parts]))
    assert module.__doc__
    own = [
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        if not getattr(value, "_is_protocol", False)  # make_model says what they do
    ]
    silent = [name for name, value in own if inspect.isfunction(value) and not value.__doc__]
    silent += [name for name, value in own if inspect.isclass(value) and not written_doc(value)]
    for name, value in own:
        if inspect.isclass(value):
            silent += [f"{name}.{method}" for method in undocumented_methods(value)]
    assert silent == []


def written_doc(cls):
    """The docstring that a class has of its own; dataclasses and named tuples make one up."""
    made_up = cls.__doc__ is None or cls.__doc__.startswith(f"{cls.__name__}(")
    return None if made_up else cls.__doc__


def undocumented_methods(cls):
    """Methods without a word; what flax calls by itself is none of the interface."""
    return [
        name
        for name, value in vars(cls).items()
        if inspect.isfunction(value) and not name.startswith("_") and not value.__doc__
        if name != "setup"
    ]
