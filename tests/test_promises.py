"""The page of guarantees names tests that exist, and none of its promises goes without one."""

import ast
import re

import pytest

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.fixture
def page(root):
    return (root / "docs" / "reliability.md").read_text()


def defined_in(path):
    return {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)}


def test_every_test_that_is_named_exists(page, root):
    named = NAMED.findall(page)
    assert len(named) > 50
    assert len(set(named)) == len(named)
    missing = [f"{file}::{test}" for file, test in named if test not in defined_in(root / file)]
    assert not missing


def test_every_promise_has_a_test(page):
    promised = page.partition("## Not promised")[0]
    promises = re.split(r"^- ", promised, flags=re.MULTILINE)[1:]
    without = [p for p in promises if not NAMED.search(p)]
    assert len(promises) > 30
    assert len(without) == 1 and "make chaos" in without[0]
