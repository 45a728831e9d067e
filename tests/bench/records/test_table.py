"""Tables: one way to print them, at the width of any terminal."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

import graphseq
from graphseq.bench.records.report import print_record
from graphseq.bench.records.table import format_value, print_table

ROOT = Path(graphseq.__file__).parents[1]
RECORDS = sorted((ROOT / "results").glob("*.json"))


def printed(width, terminal, draw):
    file = io.StringIO()
    draw(Console(width=width, file=file, force_terminal=terminal, color_system=None))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_fits_a_terminal_of_80_columns(path, terminal):
    record = json.loads(path.read_text("utf-8"))
    lines = printed(80, terminal, lambda console: print_record(record, console))
    assert max(map(len, lines)) <= 80
    assert len(lines) > len(record["checks"])


def test_long_numbers_are_read_in_thousands_and_short_ones_as_they_are():
    assert [format_value(value) for value in (9999, 10_000, -1_000_000, 1e6)] == [
        "9999", "10,000", "-1,000,000", "1,000,000",
    ]  # fmt: skip


def test_a_table_without_header_has_only_its_rows():
    rows = [{"entry": "title", "text": "GIN"}, {"entry": "state", "text": "complete"}]
    for terminal in (True, False):
        shown = printed(80, terminal, lambda console: print_table(rows, console, header=False))
        assert [line.split() for line in shown] == [["title", "GIN"], ["state", "complete"]]


def test_tables_are_made_in_one_place():
    """Tables of rich are built by ``print_table`` alone, and no other code pads columns by hand."""
    by_hand = re.compile(r"rich\.table|\.[lr]just\(|:[<>][{\d]")
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "graphseq").rglob("*.py"))
        if path.name != "table.py" and by_hand.search(path.read_text("utf-8"))
    ]
    assert found == []
