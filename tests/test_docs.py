"""What the documents and setup.cfg name exists: files, links, commands, keys, functions."""

import ast
import configparser
import dataclasses
import importlib
import re
import shlex

import pytest

import mtm_jax
from experiments.runtime import cli, cli_help, config_files
from mtm_jax.config import PlanConfig

PAGES = (
    *("README.md", "SECURITY.md", "results/README.md", "tests/golden/README.md"),
    *("docs/architecture.md", "docs/data.md", "docs/deviations.md", "docs/goals.md"),
    *("docs/performance.md", "docs/planning.md", "docs/reliability.md", "docs/results.md"),
    *("docs/online.md", "docs/report.md", "docs/roles.md"),
    "docs/representations.md",
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:\.venv/bin/)?python -m experiments\.(\w+)(.*)")
MAKE = re.compile(r"make ([a-z-]+)((?: [A-Z]+=\S+)*)")
KEY = re.compile(r"--config\.([\w.]+)=")
NAMED_FILE = re.compile(r"(?:mtm_jax|experiments|configs|docs|tests|results)/[\w./*-]+")
FUNCTION = re.compile(r"`([\w/]+\.py):([\w.]+)`")
PLACEHOLDER = re.compile(r"\b(?:DEVICE|ENV|NAME)\b")


@pytest.fixture(params=PAGES)
def page(request, root):
    return root / request.param


def without_code(text):
    return SPAN.sub("", FENCED.sub("", text))


def pieces(text):
    """Lines of fenced blocks, joined where a backslash continues them, and code in the prose."""
    blocks = [body for language, body in FENCED.findall(text) if language != "python"]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    lines = [re.sub(r"\s+#.*", "", line) for line in lines]
    return lines + SPAN.findall(FENCED.sub("", text))


def slugs(text):
    """Anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def commands(text):
    found = [COMMAND.fullmatch(piece.strip()) for piece in pieces(text)]
    return [(m[1], shlex.split(m[2])) for m in found if m and m[1] != "NAME"]


def module_of(program, root):
    folder = (root / "experiments" / program).is_dir()
    return importlib.import_module(f"experiments.{program}" + ".__main__" * folder)


def test_every_page_is_checked(root):
    written = {p.relative_to(root).as_posix() for p in (root / "docs").glob("*.md")}
    assert written <= set(PAGES)


def test_links_lead_to_files_and_headings(page):
    for link in LINK.findall(without_code(page.read_text())):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in slugs(target.read_text()), link


def test_named_files_exist(page, root):
    for piece in pieces(page.read_text()):
        for name in NAMED_FILE.findall(piece.partition("::")[0]):
            assert list(root.glob(PLACEHOLDER.sub("*", name).rstrip("/."))), name


def test_the_list_of_results_is_complete(root):
    rows = re.findall(r"^\| (`.*?) \|", (root / "results" / "README.md").read_text(), re.MULTILINE)
    listed = [name for row in rows for name in SPAN.findall(row)]
    found = {p for name in listed for p in (root / "results").glob(name)}
    stored = {p for p in (root / "results").rglob("*") if p.is_file() and p.name != "README.md"}
    assert stored == found


def test_commands_parse(page, root):
    for program, argv in commands(page.read_text()):
        spell_out = getattr(module_of(program, root), "spell_out", list)
        cli.parse(spell_out(argv), f"configs/{program}.py")


def test_the_pages_name_many_commands(root):
    assert sum(len(commands((root / name).read_text())) for name in PAGES) > 40


def test_keys_exist(page, root):
    files = [p.name for p in (root / "configs").glob("*.py") if p.name != "common.py"]
    known = {k for f in files for k, _ in cli_help.flatten(config_files.load(f"configs/{f}"))}
    for piece in pieces(page.read_text()):
        assert {k for k in KEY.findall(piece) if k not in ("key", "KEY")} <= known, piece


def test_make_targets_take_these_variables(page, root):
    makefile = (root / "Makefile").read_text()
    for piece in pieces(page.read_text()):
        for target, settings in MAKE.findall(piece):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), piece
            for variable in re.findall(r"([A-Z]+)=", settings):
                assert re.search(rf"\b{variable}\)", makefile), piece


def first_column(text, header):
    """Code in the first column of the table whose header line begins so."""
    table = text.partition(header)[2].partition("\n\n")[0]
    rows = re.findall(r"^\|(.*?)\|", table, re.MULTILINE)
    return [name for row in rows for name in SPAN.findall(row)]


def test_every_command_is_in_the_readme(root):
    text, folder = (root / "README.md").read_text(), root / "experiments"
    programs = {p.stem for p in folder.glob("*.py")} | {
        p.parent.name for p in folder.glob("*/__main__.py")
    }
    assert sorted(first_column(text, "| `python -m experiments.` |")) == sorted(
        programs - {"__init__"}
    )
    targets = re.findall(r"^([a-z-]+):.*## ", (root / "Makefile").read_text(), re.MULTILINE)
    told = {*first_column(text, "| `make` |"), "help", "setup", "format", "clean"}
    assert told == set(targets)


def test_python_examples_use_what_there_is(page):
    for language, body in FENCED.findall(page.read_text()):
        if language == "python":
            for node in ast.walk(ast.parse(body)):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "mtm_jax":
                    assert hasattr(mtm_jax, node.attr), node.attr


def test_options_of_plans_are_all_explained(root):
    text = (root / "docs" / "planning.md").read_text()
    explained = first_column(text, "| option |")
    assert sorted(explained) == sorted(f.name for f in dataclasses.fields(PlanConfig))


def test_folders_are_those_of_the_law(root):
    from test_layering import FOLDERS

    text = (root / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \|([^|]*)\|", text, re.MULTILINE)
    told = {folder: set(allowed.strip().split(", ")) - {""} for folder, allowed in rows}
    assert told == {folder: allowed - {""} for folder, allowed in FOLDERS.items() if folder}


def test_an_installed_package_has_its_actors(root):
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg")
    patterns = settings["options.package_data"]["mtm_jax"].split()
    assert patterns and all(list((root / "mtm_jax").glob(pattern)) for pattern in patterns)


def defined_in(tree, prefix=""):
    """Functions and classes of a module, nested functions by their own name, methods by Class.x."""
    for node in ast.iter_child_nodes(tree):
        inside = prefix
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name
            inside = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        yield from defined_in(node, inside)


def test_the_walks_name_functions_that_exist(page, root):
    for file, name in FUNCTION.findall(page.read_text()):
        tree = ast.parse((root / file).read_text())
        assert name in set(defined_in(tree)), f"{file}:{name}"


def test_the_walks_are_short(root):
    walks = (root / "docs" / "architecture.md").read_text().split("\n## From ")[1:]
    steps = [re.findall(r"^\d+\. `[\w/]+\.py:", walk, re.MULTILINE) for walk in walks]
    assert len(steps) == 2 and all(10 <= len(walk) <= 15 for walk in steps)


def test_tables_of_scores_agree(root):
    told = [(root / name).read_text() for name in ("README.md", "docs/results.md")]
    rows = [re.findall(r"^\| (?:hopper|walker2d|halfcheetah)-\S+ \|.*\[.*", t, re.M) for t in told]
    assert len(rows[0]) == 6 and set(rows[0]) <= set(rows[1])
