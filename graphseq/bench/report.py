"""A record as it is printed, and all accepted records as RESULTS.md."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphseq.bench.experiment import Row
from graphseq.bench.table import columns_of, format_value, is_numeric, print_table

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_record", "results_markdown"]


def _skips(record: Row) -> list[Row]:
    """Skipped cells, those of equal reason as one line."""
    reasons: dict[str, list[str]] = {}
    for row in record["rows"]:
        if "skipped" in row:
            cell = " ".join(f"{key}={value}" for key, value in row.items() if key != "skipped")
            reasons.setdefault(row["skipped"], []).append(cell)
    return [
        {"skipped": cells[0] if len(cells) == 1 else f"{cells[0]} and {len(cells) - 1} more", "reason": reason}
        for reason, cells in reasons.items()
    ]


def _environment_line(environment: Row) -> str:
    parts = [f"{name} {value}" for name, value in environment.items() if name not in ("cpu", "gpu", "date") and value]
    parts += [f"{name} {environment.get(name) or 'none'}" for name in ("cpu", "gpu")]
    return ", ".join([*parts, str(environment.get("date", ""))])


def print_record(record: Row, console: "Console") -> None:
    """Print the summary table of a record, its checks, what was skipped, the verdict and the environment.

    Args:
        record: what :func:`~graphseq.bench.runner.run_experiment` returned.
        console: where to.

    Example:
        >>> from rich.console import Console
        >>> record = {"name": "speed.sum", "kind": "speed", "scale": "quick", "verdict": None, "rows": [],
        ...           "table": [{"arm": "ours", "seconds": 0.5}], "checks": [], "environment": {"torch": "2.13.0"}}
        >>> print_record(record, Console(width=80))  # doctest: +ELLIPSIS
        speed.sum (scale quick)
        arm   seconds
        ours      0.5
        ...
    """
    rows = record.get("table") or record["rows"]
    print_table(rows, console, title=f"{record['name']} (scale {record.get('scale', 'default')})")
    checks = [{key: check[key] for key in ("holds", "value", "bound", "claim")} for check in record["checks"]]
    skips = _skips(record)
    for part in (checks, skips):
        if part:
            console.print()
            print_table(part, console)
    console.print()

    def say(text: str, style: str = "") -> None:
        wrapped = textwrap.fill(text, console.width)  # unlike rich's, without trailing spaces
        console.print(wrapped, style=style or None, markup=False, highlight=False)

    if record["kind"] == "effect":
        say(f"verdict: {record['verdict'] or 'none, too little could run'}", "bold")
    if record.get("scale") == "quick":
        say("scale quick tries the code path and decides nothing")
    say(_environment_line(record["environment"]), "dim")


def _cell(value: object) -> str:
    return format_value(value).replace("|", "\\|").replace("\n", " ")


def _markdown_table(rows: Sequence[Row]) -> list[str]:
    names = columns_of(rows)
    lines = ["| " + " | ".join(_cell(name) for name in names) + " |"]
    numeric = {name: is_numeric(row.get(name) for row in rows) for name in names}
    lines.append("|" + "|".join("---:" if numeric[name] else "---" for name in names) + "|")
    lines += ["| " + " | ".join(_cell(row[name]) if name in row else "" for name in names) + " |" for row in rows]
    return lines


def _rule_text(rule: str) -> str:
    """The docstring without its example and arguments."""
    for section in ("\nExample:", "\nArgs:", "\nAttributes:"):
        rule = rule.partition(section)[0]
    return rule.strip()


def _section(record: Row, figure: Path | None) -> list[str]:
    name, scale = record["name"], record.get("scale", "default")
    lines = [f"## {name}", ""]
    if rule := _rule_text(record.get("rule", "")):
        lines += [rule, ""]
    verdict = record["verdict"] or ("none: too little could run" if record["kind"] == "effect" else None)
    if verdict:
        lines += [f"**Verdict: {verdict}.**", ""]
    table = record.get("table") or record["rows"]
    if table:
        lines += [*_markdown_table(table), ""]
    if record["checks"]:
        columns = ("claim", "value", "bound", "holds")
        lines += [*_markdown_table([{key: check[key] for key in columns} for check in record["checks"]]), ""]
    if skips := _skips(record):
        lines += [*_markdown_table(skips), ""]
    if figure:
        lines += [f"![{name}]({figure.as_posix()})", ""]
    seeds = f" --seeds {record['seeds']}" if "seeds" in record else ""
    threads = record["environment"].get("threads")
    again = f"graphseq bench {name} --scale {scale}{seeds}" + (f" --threads {threads}" if threads else "")
    quick = " Scale quick tries the code path and decides nothing." if scale == "quick" else ""
    return [*lines, f"Measured with {_environment_line(record['environment'])}. Again: `{again}`.{quick}", ""]


def results_markdown(records: Sequence[Row], folder: Path, beside: Path) -> str:
    """Return RESULTS.md: an overview and a section for every record; the same records give the same text.

    Args:
        records: accepted records.
        folder: where they and their figures lie.
        beside: the folder of RESULTS.md; links are relative to it.

    Example:
        >>> print(results_markdown([], Path("results"), Path()).splitlines()[0])
        # Results
    """
    records = sorted(records, key=lambda record: record["name"])
    overview = [
        {
            "experiment": f"[{record['name']}](#{record['name'].replace('.', '')})",
            "scale": record.get("scale", "default"),
            "claims that hold": f"{sum(check['holds'] for check in record['checks'])} of {len(record['checks'])}",
            "verdict": record["verdict"] or "",
            "date": record["environment"].get("date", ""),
        }
        for record in records
    ]
    lines = [
        "# Results",
        "",
        f"Written by `graphseq bench --report` from the records in `{folder.name}/`; not edited by hand. The rule of "
        "each verdict was stated before the run. A claim that does not hold stays here.",
        "",
        *(_markdown_table(overview) if overview else ["There are no records yet."]),
        "",
    ]
    for record in records:
        figure = folder / f"{record['name']}.png"
        link = Path(os.path.relpath(figure, beside)) if figure.exists() else None
        lines += _section(record, link)
    return "\n".join(lines).rstrip() + "\n"
