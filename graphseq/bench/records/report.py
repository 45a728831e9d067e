"""Reports: a record as printed, and all accepted records as RESULTS.md."""

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphseq.bench.experiment import Row
from graphseq.bench.records.table import columns_of, format_value, is_numeric, print_table

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["claim_in_words", "details_markdown", "print_record", "results_markdown", "verdict_sentence"]


def _skips(record: Row) -> list[Row]:
    """Lines that name the skipped cells, one line for each reason."""
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
        record: record that :func:`~graphseq.bench.runner.run_experiment` returned.
        console: console of ``rich`` to print on.

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
    checks = [
        {**{key: check[key] for key in ("holds", "value", "bound")}, "claim": claim_in_words(check["claim"])}
        for check in record["checks"]
    ]
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
        say(f"verdict: {record['verdict'] or f'none {_no_verdict(record)}'}", "bold")
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
    """A docstring without its example and arguments."""
    for section in ("\nExample:", "\nArgs:", "\nAttributes:"):
        rule = rule.partition(section)[0]
    return rule.strip()


def _again(record: Row) -> str:
    """The command that measures a record again."""
    only = f" --only '{record['only']}'" if "only" in record else ""
    seeds = f" --seeds {record['seeds']}" if "seeds" in record else ""
    threads = record["environment"].get("threads")
    scale = record.get("scale", "default")
    on = f" --threads {threads}" if threads else ""
    return f"graphseq bench {record['name']}{only} --scale {scale}{seeds}{on}"


def _commit(record: Row) -> str:
    """Commit at which a record was measured; older records do not hold it."""
    source = record.get("source") or {}
    if not source.get("commit"):
        return ""
    return f" Commit {source['commit'][:12]}{' with changes that are not in it' if source.get('modified') else ''}."


def claim_in_words(claim: str) -> str:
    """Return a claim with places ``arm@value`` written out.

    Args:
        claim: text of a check.

    Example:
        >>> claim_in_words("(A) snn@USPS@32 - plain@USPS@32")
        '(A) snn less plain at USPS, 32'
        >>> claim_in_words("(C) both@800 - none@200")
        '(C) both at 800 less none at 200'
    """
    letter, text = match.groups() if (match := re.match(r"(\([^)]*\) )?(.*)", claim, re.DOTALL)) else ("", claim)
    places = [part.split("@") for part in text.split(" - ")]
    if len(places) != 2 or any(len(place) < 2 for place in places):
        return claim
    (ours, *here), (other, *there) = places
    words = f"{ours} less {other}" if here == there else f"{ours} at {', '.join(here)} less {other}"
    return f"{letter or ''}{words} at {', '.join(there)}"


def _claims(record: Row) -> list[str]:
    """The table of claims of a record, one line each."""
    columns = ("claim", "value", "bound", "holds")
    rows = [{key: check[key] for key in columns} for check in record["checks"]]
    return [*_markdown_table([{**row, "claim": claim_in_words(row["claim"])} for row in rows]), ""] if rows else []


def _measured(record: Row) -> list[str]:
    """Tables of a record, and the hardware and versions that they were measured with."""
    lines: list[str] = []
    if table := record.get("table") or record["rows"]:
        lines += [*_markdown_table(table), ""]
    if skips := _skips(record):
        lines += [*_markdown_table(skips), ""]
    for note in record.get("notes", []):
        lines += [f"Note: {note}", ""]
    quick = " Scale quick tries the code path and decides nothing." if record.get("scale") == "quick" else ""
    environment = _environment_line(record["environment"])
    return [*lines, f"Measured with {environment}.{_commit(record)} Again: `{_again(record)}`.{quick}", ""]


def _title(record: Row) -> str:
    """Title of a record: the first line of its rule."""
    return _rule_text(record.get("rule", "")).partition("\n")[0]


def verdict_sentence(record: Row) -> str:
    """Return the result of a record as one sentence.

    Args:
        record: record that :func:`~graphseq.bench.runner.run_experiment` returned.

    Example:
        >>> checks = [{"claim": "twice as fast", "holds": True}, {"claim": "half the memory", "holds": False}]
        >>> verdict_sentence({"kind": "speed", "verdict": None, "rows": [], "checks": checks})
        '1 of 2 claims hold.'
        >>> verdict_sentence({"kind": "effect", "verdict": "partly", "rows": [], "checks": checks})
        'Reproduced in part: 1 of 2 claims hold.'
    """
    held, count = sum(check["holds"] for check in record["checks"]), len(record["checks"])
    claims = f"{'all' if held == count else f'{held} of'} {count} claims hold" if count else "nothing was claimed"
    if count == 1:
        claims = f"the one claim {'holds' if held else 'does not hold'}"
    if record["kind"] == "speed":
        return f"{claims[0].upper()}{claims[1:]}."
    words = {"reproduced": "Reproduced", "partly": "Reproduced in part", "not reproduced": "Not reproduced"}
    return f"{words.get(record['verdict']) or f'No verdict {_no_verdict(record)}'}: {claims}."


def _no_verdict(record: Row) -> str:
    """Why a record has no verdict: a rule gives one as soon as all its claims have a value."""
    complete = record["checks"] and all(check["value"] is not None for check in record["checks"])
    return "is asked for" if complete else "for too little could run"


def details_markdown(record: Row, figure: str | None) -> str:
    """Return ``results/<name>.md``: verdict, figure, claims, then protocol and rule, tables, and reruns of some cells.

    Args:
        record: an accepted record.
        figure: file name of the figure in the same folder; None for no figure.

    Example:
        >>> record = {"name": "speed.sum", "kind": "speed", "verdict": None, "rows": [], "checks": [],
        ...           "rule": "A sum.", "environment": {"torch": "2.13.0", "date": "2026-01-01"}}
        >>> details_markdown(record, None).splitlines()[:5]
        ['# speed.sum', '', 'A sum.', '', '**Nothing was claimed.**']
    """
    rule = _rule_text(record.get("rule", ""))
    title, _, protocol = rule.partition("\n")
    lines = [f"# {record['name']}", "", *([title, ""] if title else []), f"**{verdict_sentence(record)}**", ""]
    if figure:
        lines += [f"![{title or record['name']}]({figure})", ""]
    lines += _claims(record)
    if protocol.strip():
        lines += ["## Protocol", "", protocol.strip(), ""]
    lines += ["## Measurements", "", *_measured(record)]
    for rerun in record.get("reruns", []):
        lines += [f"## Rerun of {rerun['only']}", ""]
        if _rule_text(rerun["rule"]) != rule:
            lines += [_rule_text(rerun["rule"]), ""]
        lines += [*_claims(rerun), *_measured(rerun)]
    return "\n".join(lines).rstrip() + "\n"


def results_markdown(records: Sequence[Row], folder: Path, beside: Path) -> str:
    """Return RESULTS.md, one line for every record; the same records give the same text.

    Args:
        records: accepted records.
        folder: folder of the records, their details and their figures.
        beside: folder of RESULTS.md, to which links are relative.

    Example:
        >>> print(results_markdown([], Path("results"), Path()).splitlines()[0])
        # Results
    """
    place = Path(os.path.relpath(folder, beside)).as_posix()
    lines = []
    for record in sorted(records, key=lambda record: record["name"]):
        name = record["name"]
        drawn = (folder / f"{name}.png").exists()
        dates = dict.fromkeys(run["environment"].get("date") for run in record.get("reruns", []))
        rerun = "".join(f" Part of it was run again on {date}." for date in dates)
        lines.append(
            {
                "experiment": f"[{name}]({place}/{name}.md)",
                "what is compared": _title(record),
                "what came out": verdict_sentence(record) + rerun,
                "figure": f"[figure]({place}/{name}.png)" if drawn else "",
                "date": record["environment"].get("date", ""),
                "again": f"`graphseq bench {name}`",
            }
        )
    text = [
        "# Results",
        "",
        f"Written by `graphseq bench --report` from the records in `{folder.name}/`; not edited by hand. The rule of "
        "each verdict was stated before the run. A claim that does not hold stays here. Protocols, tables and machines "
        "stand behind the names.",
        "",
        *(_markdown_table(lines) if lines else ["There are no records yet."]),
    ]
    return "\n".join(text).rstrip() + "\n"
