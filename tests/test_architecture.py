"""The table of architecture: who may import whom, sizes, docstrings, exported names."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from graphseq.core.lazy import read_stub

ROOT = Path(__file__).parent.parent / "graphseq"
EXPERIMENTS = sorted((ROOT.parent / "experiments").rglob("*.py"))
FILES = sorted(ROOT.rglob("*.py"))
LONGEST = 500
# file -> its own limit, and why it is not split
LONGER = {"models.temporal.link_stream": (660, "one class with its state and checks")}

# room -> rooms it may import (a whole room, or one file of it)
ALLOWED = {
    "core": set(),
    "ops": {"core"},
    "sparsity": {"core", "ops"},
    "nn": {"core", "ops", "sparsity"},
    "models": {"core", "ops", "sparsity", "nn"},
    "metrics": {"core", "ops"},
    "data": {"core", "ops"},
    "tasks": {"core", "ops", "sparsity", "nn", "metrics"},
    "callbacks": {"core", "ops", "sparsity", "nn", "metrics", "tasks.base"},
    "analysis": {"core", "ops", "sparsity", "nn", "metrics"},
}
ROOMS = set(ALLOWED)
ALLOWED["bench"] = ROOMS
ALLOWED["cli"] = ROOMS | {"bench"}

WITHOUT_LIGHTNING = {"core", "nn", "models", "ops", "sparsity", "metrics", "analysis", "data.store", "data.loader"}

# package -> rooms or files that may import it; None: only inside functions of these
THIRD_PARTY = {
    "networkx": {"sparsity.structures", "analysis.structure", "data"},
    "torch_scatter": {"ops"},
    "numba": {"ops.processor"},
    "torch_geometric": {
        "nn.graph",
        "nn.temporal",
        "models",
        "data",
        "ops",
        "bench",
        "analysis.groups",
        "analysis.patching.graphs",
    },
}
ONLY_INSIDE_FUNCTIONS = {
    "matplotlib": {"callbacks.reports.figures", "callbacks.reports.fields", "bench", "cli", "analysis.patching.figures"}
}


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def within(name, places):
    return any(name == place or name.startswith(f"{place}.") for place in places)


def imports(path):
    """Yield (imported module, whether it stands inside a function) of a file, those for type checkers left out."""
    tree = ast.parse(path.read_text())
    typing_only = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only.update(id(child) for child in ast.walk(node))
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside.update(id(child) for child in ast.walk(node) if child is not node)
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, id(node) in inside
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in inside


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_arrows(path):
    name = dotted(path)
    room = name.split(".")[0] if name else ""
    if room not in ALLOWED:
        assert path.parent == ROOT, f"{name} stands in no room"
        return
    for target, _ in imports(path):
        if not target.startswith("graphseq."):
            continue
        there = target.removeprefix("graphseq.")
        other = there.split(".")[0]
        if other not in ALLOWED or other == room:
            continue
        whole = {allowed for allowed in ALLOWED[room] if "." not in allowed}
        files = {allowed for allowed in ALLOWED[room] if "." in allowed}
        assert other in whole or within(there, files) or any(f.startswith(f"{there}.") for f in files), (
            f"{name} imports {target}: {room} may import {sorted(ALLOWED[room])}"
        )


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_third_party_edges(path):
    name = dotted(path)
    for target, inside in imports(path):
        package = target.split(".")[0]
        if package in THIRD_PARTY:
            assert within(name, THIRD_PARTY[package]), f"{name} imports {target}"
        if package in ONLY_INSIDE_FUNCTIONS:
            assert within(name, ONLY_INSIDE_FUNCTIONS[package]), f"{name} imports {target}"
            assert inside, f"{name} imports {target} at its top; matplotlib is loaded only where a figure is drawn"
        if package in ("lightning", "pytorch_lightning"):
            assert not within(name, WITHOUT_LIGHTNING), f"{name} imports {target}"


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_size(path):
    longest, _ = LONGER.get(dotted(path), (LONGEST, ""))
    assert len(path.read_text().splitlines()) <= longest, f"{dotted(path)} is longer than {longest} lines: split it"


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_nothing_imports_experiments(path):
    above = {"experiments", "tests"}
    assert not above & {target.split(".")[0] for target, _ in imports(path)}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_experiments_import_what_is_public(path):
    """An experiment measures what users import: names of rooms, and the harness; never a file of a room."""
    assert path.parent.parent == ROOT.parent / "experiments", "an experiment stands in the folder of its family"
    assert len(path.read_text().splitlines()) <= LONGEST
    for target, _ in imports(path):
        package, *rest = target.split(".")
        if package == "graphseq" and len(rest) > 1 and rest[0] != "bench":
            public = read_stub(ROOT / rest[0] / "__init__.pyi")
            assert rest[1:] in [[name] for name in public], f"{path} imports {target}, which is no public name"


def test_there_is_no_drawer_for_everything():
    banned = {"utils", "common", "misc", "helpers", "util"}
    assert not [path for path in FILES if banned & {*path.parts, path.stem}]


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_names_of_a_room(room):
    """Every public name imports, has a docstring with an example, and is what the files and type checkers see."""
    module = importlib.import_module(f"graphseq.{room}")
    assert module.__doc__
    stated = {}
    for path in (ROOT / room).rglob("*.py"):
        if path == ROOT / room / "__init__.py":
            continue
        for node in ast.parse(path.read_text()).body:
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                stated.update(dict.fromkeys(ast.literal_eval(node.value), f"graphseq.{dotted(path)}"))
    assert stated == read_stub(ROOT / room / "__init__.pyi"), "the stub of a room names what its files state as public"
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"graphseq.{room}.{name} has no docstring"
            assert "Example:" in value.__doc__, f"the docstring of graphseq.{room}.{name} has no example"
    with pytest.raises(AttributeError, match="'NoSuchName'"):
        module.NoSuchName  # noqa: B018 - the access is what is tested


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'torch', 'lightning', 'torch_geometric', 'numpy', 'matplotlib', 'networkx', 'rich'}"
    assert run(f"import sys, graphseq; print(sorted({heavy} & set(sys.modules)))") == "[]"


@pytest.mark.parametrize(
    ("rooms", "absent"),
    [("core metrics", "lightning torch_geometric"), ("ops nn models", "lightning matplotlib networkx")],
)
def test_rooms_stay_light(rooms, absent):
    code = f"""
import importlib, sys
for name in {rooms.split()}:
    room = importlib.import_module("graphseq." + name)
    [getattr(room, public) for public in room.__all__]
    print(name, [other for other in {absent.split()} if other in sys.modules])
"""
    assert run(code).splitlines() == [f"{room} []" for room in rooms.split()]


def test_help_needs_neither_torch_nor_lightning():
    code = (
        "import sys; from graphseq.cli import main; main(['--help']); main(['list']); "
        "print([name for name in ('torch', 'lightning') if name in sys.modules])"
    )
    assert run(code).splitlines()[-1] == "[]"
