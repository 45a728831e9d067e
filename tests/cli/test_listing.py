"""Names with their lines: complete, read from source, quick, without heavy imports."""

import importlib
import inspect
import subprocess
import sys

import pytest

from graphseq.bench import experiments
from graphseq.cli.listing import list_configs, list_experiments, list_room, main
from graphseq.cli.shipped import shipped_files, shipped_folder
from graphseq.core.methods import BEGIN, END, read_methods

ROOMS = ("tasks", "nn", "models", "data", "callbacks", "metrics", "ops", "analysis", "sparsity")


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_the_line_of_its_docstring(room):
    module = importlib.import_module(f"graphseq.{room}")
    rows = list_room(room)
    assert [row["name"] for row in rows] == sorted(module.__all__)
    for row in rows:
        thing = getattr(module, row["name"])
        if inspect.isclass(thing) or inspect.isfunction(thing):
            expected = inspect.cleandoc(thing.__doc__).splitlines()[0].replace("``", "`")
            assert row["what it is"] == expected
        assert row["what it is"], f"{row['name']} has no docstring"


def test_arxiv_number_is_that_of_the_docstring():
    (row,) = (row for row in list_room("models") if row["name"] == "GINClassifier")
    assert row["arXiv"] == "1810.00826"


def test_configs_show_their_first_comment(tmp_path, monkeypatch, capsys):
    (tmp_path / "configs/graph").mkdir(parents=True)
    (tmp_path / "configs/graph/gin_digits.yaml").write_text("\n#\n#  GIN on digits.\n# More.\nmodel: {}\n")
    (tmp_path / "configs/bare.yml").write_text("model: {}\n")
    monkeypatch.chdir(tmp_path)
    assert list_configs(tmp_path / "configs")[0]["name"].endswith("configs/bare.yml")
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [" ".join(line.split()) for line in lines[:2]] == [
        "configs/bare.yml",
        "configs/graph/gin_digits.yaml GIN on digits.",
    ]
    assert [line.split()[0] for line in lines[2:]] == list(shipped_files("configs"))


@pytest.mark.parametrize("kind", ["configs", "examples"])
def test_files_of_the_package_are_listed_once_in_any_folder(kind, tmp_path, monkeypatch, capsys):
    for folder in (tmp_path, shipped_folder("configs").parent):
        monkeypatch.chdir(folder)
        assert main([kind]) == 0
        lines = capsys.readouterr().out.splitlines()[1:]
        assert [line.split()[0] for line in lines] == list(shipped_files(kind))
        assert all(len(line.split()) > 1 for line in lines)  # each says what it is


def test_experiments_are_listed():
    assert "effect.gin_tu" in experiments()
    assert [row["name"] for row in list_experiments()] == list(experiments())


def test_piped_rows_are_single_plain_lines(capsys):
    assert main(["data"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1 + len(list_room("data"))
    assert "\x1b" not in out


def test_overview_counts_every_room(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    rooms = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    assert list(rooms) == [*ROOMS, "configs", "examples", "bench"]
    assert all(rooms[room] == len(list_room(room)) for room in ROOMS)


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("room", [[], ["data"], ["models"]])
def test_terminal_table_fits(width, room, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")  # widths without control sequences
    assert main(room) == 0
    out = capsys.readouterr().out
    assert "─" in out
    assert max(map(len, out.splitlines())) <= width


def test_unknown_room_is_refused(capsys):
    assert main(["rooms"]) == 2
    assert "'tasks', 'nn'" in capsys.readouterr().err
    assert main(["--help"]) == 0


@pytest.mark.parametrize("room", [[], ["data"], ["methods"], ["configs"], ["examples"]])
def test_answers_without_heavy_imports(room):
    code = (
        "import sys; from graphseq.cli.listing import main; status = main(sys.argv[1:]); assert status == 0;"
        "assert not {'torch', 'lightning', 'numpy', 'matplotlib'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code, *room], check=True, capture_output=True)


def test_methods_are_listed_and_shown(capsys):
    methods = read_methods()
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [method.key for method in methods]
    assert [line.split()[-1] for line in lines] == [method.state for method in methods]
    assert main(["methods", "pres"]) == 0
    shown = capsys.readouterr().out
    (pres,) = (method for method in methods if method.key == "pres")
    for part in (pres.title, pres.claim, pres.deviations, pres.code, *pres.classes, *pres.configs, *pres.experiments):
        assert part in shown


@pytest.mark.parametrize("width", [80, 100])
def test_details_of_a_method_fit_a_terminal(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert main(["methods", "pres"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= width


def test_table_of_methods_is_written_between_the_markers(tmp_path, capsys):
    document = tmp_path / "README.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["methods", "--markdown", str(document)]) == 0
    assert main(["methods", "--markdown"]) == 0
    table = capsys.readouterr().out.strip()
    assert document.read_text() == f"before\n{BEGIN}\n\n{table}\n\n{END}\nafter\n"


def test_wrong_words_after_methods(tmp_path, capsys):
    assert main(["methods", "press"]) == 2
    assert "did you mean pres?" in capsys.readouterr().err
    assert main(["methods", "--markdown", str(tmp_path / "nothing.md")]) == 2
    assert "nothing.md" in capsys.readouterr().err
    assert main(["nn", "pres"]) == 2
    assert "pres" in capsys.readouterr().err


def test_a_reader_that_has_enough_ends_the_list_quietly():
    code = "import sys; from graphseq.cli import main; sys.exit(main(['list', 'methods']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
