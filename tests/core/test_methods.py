"""The table of methods: what it may hold, and that it names what exists."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from graphseq.bench import experiments
from graphseq.bench.docstrings import arxiv_id
from graphseq.core.methods import (
    BEGIN,
    BEGIN_OVERVIEW,
    END,
    Method,
    MethodError,
    check_files,
    markdown,
    overview,
    read_methods,
    replace_table,
)

ROOT = Path(__file__).parents[2]
METHODS = read_methods()
ENTRY = {
    "title": "PRES",
    "papers": ["2402.04284"],
    "claim": "Larger batches.",
    "state": "partly",
    "classes": ["graphseq.nn.PRESCorrector"],
    "deviations": "none known",
}


def table(folder, text="", **changes):
    entry = {key: value for key, value in {**ENTRY, **changes}.items() if value is not None}
    lines = ["[pres]", *(f"{key} = {value if isinstance(value, int) else repr(value)}" for key, value in entry.items())]
    path = folder / "methods.toml"
    path.write_text("\n".join(lines) + "\n" + text)
    return path


def test_an_entry_is_read(tmp_path):
    (method,) = read_methods(table(tmp_path, code="https://example.org", licence="MIT"))
    assert method == Method(
        "pres", "PRES", ("2402.04284",), "Larger batches.", "partly", ("graphseq.nn.PRESCorrector",),
        deviations="none known", code="https://example.org", licence="MIT",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ["graphseq.nn.PRESCorector"]}, r"classes.*graphseq\.nn\.PRESCorector.*PRESCorrector"),
        ({"classes": ["graphseq.nothing.PRES"]}, r"classes.*graphseq\.nothing\.PRES"),
        ({"classes": ["PRESCorrector"]}, "classes.*PRESCorrector"),
        ({"classes": ["os.system"]}, r"classes.*os\.system"),
        ({"classes": ["graphseq.nn.PRESCorrector", "graphseq.nn.PRESCorrector"]}, "classes.*PRESCorrector"),
        ({"class": ["graphseq.nn.PRESCorrector"]}, r"class\b.*classes"),
        ({"title": None}, "title"),
        ({"papers": None}, "papers"),
        ({"claim": None}, "claim"),
        ({"state": None}, "state"),
        ({"state": "done"}, "state.*'done'"),
        ({"classes": None}, "classes"),
        ({"deviations": None}, "deviations"),
        ({"state": "planned"}, "classes"),
        ({"papers": "2402.04284"}, "papers"),
        ({"papers": []}, "papers"),
        ({"configs": [1]}, "configs"),
        ({"claim": " "}, "claim"),
        ({"title": 3}, "title.*3"),
        ({"licence": "MIT"}, "licence.*code"),
    ],
)
def test_wrong_entries_name_entry_and_key(tmp_path, changes, words):
    with pytest.raises(MethodError, match=rf"\[pres\].*{words}"):
        read_methods(table(tmp_path, **changes))


@pytest.mark.parametrize("text", ["[pres]\ntitle = 'again'", "title = 'again'", "papers = ["])
def test_what_stands_twice_or_is_no_toml(tmp_path, text):
    with pytest.raises(MethodError, match=r"methods\.toml"):
        read_methods(table(tmp_path, text))


def test_a_value_that_is_no_table(tmp_path):
    path = tmp_path / "methods.toml"
    path.write_text("pres = 'PRES'")
    with pytest.raises(MethodError, match=r"\[pres\]"):
        read_methods(path)


def test_configs_and_experiments_must_exist(tmp_path):
    (tmp_path / "temporal").mkdir()
    (tmp_path / "temporal/pres.yaml").write_text("")
    good = Method("pres", "PRES", ("1",), "C", "partly", configs=("temporal/pres",), experiments=("effect.pres",))
    check_files([good], tmp_path, ["effect.pres"])
    with pytest.raises(MethodError, match=r"\[pres\], experiments.*effect\.pres"):
        check_files([good], tmp_path, ["effect.press"])
    (tmp_path / "temporal/pres.yaml").rename(tmp_path / "temporal/press.yaml")
    with pytest.raises(MethodError, match=r"\[pres\], configs.*temporal/pres,.*temporal/press"):
        check_files([good], tmp_path, ["effect.pres"])


def test_the_table_names_what_exists():
    """Classes import; that the configs build is shown by tests/configs, which runs every config there is."""
    for method in METHODS:
        for path in method.classes:
            room, _, name = path.rpartition(".")
            assert inspect.isclass(getattr(importlib.import_module(room), name)), path
        for number in method.papers:
            assert re.fullmatch(r"\d{4}\.\d{4,5}", number), method.key
    check_files(METHODS, ROOT / "configs", experiments(ROOT / "experiments"))


@pytest.mark.parametrize("room", ["nn", "models", "tasks", "callbacks"])
def test_every_public_class_that_names_a_paper_stands_in_the_table(room):
    module = importlib.import_module(f"graphseq.{room}")
    papers = {}
    for method in METHODS:
        for path in method.classes:
            papers.setdefault(path, set()).update(method.papers)
    for name in module.__all__:
        value = getattr(module, name)
        number = arxiv_id(value.__doc__ or "") if inspect.isclass(value) else ""
        if number:
            assert number in papers.get(f"graphseq.{room}.{name}", ()), f"{room}.{name} names arXiv {number}"


def test_every_effect_and_every_paper_of_the_plan_stands_in_the_table():
    named = {name for method in METHODS for name in method.experiments}
    effects = {name for name in experiments(ROOT / "experiments") if name.startswith("effect.")}
    assert effects <= named
    assert len({method.title for method in METHODS}) == len(METHODS)


@pytest.mark.parametrize("document", ["README.md", "docs/methods.md"])
def test_documents_hold_the_table(document):
    text = (ROOT / document).read_text("utf-8")
    assert replace_table(text, METHODS) == text, f"run `graphseq list methods --markdown {document}`"


def test_overview_names_what_exists_and_counts_what_is_planned():
    there = Method("a", "A | B", ("1",), "C", "partly", ("graphseq.nn.A",), deviations="none", family="x")
    planned = [Method(key, key, ("2",), "C", "planned", family="x") for key in "bc"]
    other = Method("d", "D", ("3",), "C", "complete", ("graphseq.nn.D",), deviations="none")
    rows = overview([there, other, *planned]).splitlines()[2:]
    assert rows == [r"| x | A \| B (in part) | 2 |", "| other | D |  |"]
    text = f"{BEGIN_OVERVIEW}\n{END}"
    assert overview([other]) in replace_table(text, [other])


def test_table_and_list():
    there = Method("a", "A | B", ("1", "2"), "C", "partly", ("graphseq.nn.A",), ("graph/a",), ("effect.a",), "none")
    planned = Method("b", "B", ("3",), "C", "planned")
    lines = markdown([there, planned]).splitlines()
    links = [f"[{number}](https://arxiv.org/abs/{number})" for number in (1, 2, 3)]
    assert lines[2] == rf"| A \| B (in part) | `nn.A` | {links[0]}, {links[1]} | `graph/a` | `effect.a` |"
    assert lines[-1] == f"Planned: B ({links[2]})."


@pytest.mark.parametrize(
    "text", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN}{END}{BEGIN}{END}", f"{BEGIN}{BEGIN_OVERVIEW}{END}"]
)
def test_documents_without_the_markers(text):
    with pytest.raises(MethodError, match="end of methods"):
        replace_table(text, METHODS)
