"""``graphseq list methods``: the published methods, their state, and differences from the papers."""

import difflib
import sys
from pathlib import Path

from graphseq.bench import experiments
from graphseq.core.methods import TABLE, Method, MethodError, check_files, markdown, read_methods, replace_table

__all__ = ["checked_methods", "list_methods"]

_CHECKOUT = TABLE.parents[1]


def checked_methods() -> tuple[Method, ...]:
    """Return the table of methods after all checks; configs and experiments are checked only in a checkout.

    Raises:
        MethodError: if an entry is wrong, or names a class, config or experiment that does not exist.

    Example:
        >>> [method.key for method in checked_methods()][0]
        'gin'
    """
    methods = read_methods()
    if (_CHECKOUT / "experiments").is_dir() and (_CHECKOUT / "pyproject.toml").is_file():
        check_files(methods, _CHECKOUT / "configs", experiments(_CHECKOUT / "experiments"))
    return methods


def _details(method: Method) -> list[tuple[str, str]]:
    papers = ", ".join(f"https://arxiv.org/abs/{number}" for number in method.papers)
    code = method.code + (f" ({method.licence})" if method.licence else "")
    lists = [(name, ", ".join(getattr(method, name))) for name in ("classes", "configs", "experiments")]
    rows = [
        ("title", method.title),
        ("family", method.family),
        ("state", method.state),
        ("papers", papers),
        ("claim", method.claim),
    ]
    return [row for row in [*rows, *lists, ("deviations", method.deviations), ("code", code)] if row[1]]


def list_methods(key: str | None = None, document: str | None = None) -> int:
    """Print all methods, or one in detail, or write the table into a document, and return the exit status.

    Args:
        key: key of the entry to print in detail; None for a list of all entries.
        document: ``-`` to print the Markdown table, or the file whose part between the markers is replaced, by the
            table or the overview as the markers say; None for neither.

    Example:
        >>> list_methods("no_such_method")
        2
    """
    from rich.console import Console

    from graphseq.bench.records.files import replacing
    from graphseq.bench.records.table import print_table

    try:
        methods = checked_methods()
        if document == "-":
            print(markdown(methods))
        elif document is not None:
            path = Path(document)
            text = replace_table(path.read_text("utf-8"), methods)
            with replacing(path) as temporary:
                temporary.write_text(text, "utf-8")
    except (MethodError, OSError) as error:
        print(f"graphseq list methods: {error}", file=sys.stderr)
        return 2
    if document is not None:
        return 0
    console = Console()
    if key is None:
        rows = [
            {"name": one.key, "what it is": one.title, "arXiv": one.papers[0], "state": one.state} for one in methods
        ]
        print_table(rows, console, wrap=False)
        return 0
    by_key = {method.key: method for method in methods}
    if key not in by_key:
        near = difflib.get_close_matches(key, by_key, n=1)
        hint = f"did you mean {near[0]}?" if near else "`graphseq list methods` names them"
        print(f"graphseq list methods: there is no method {key}; {hint}", file=sys.stderr)
        return 2
    print_table(
        [{"entry": name, "text": text} for name, text in _details(by_key[key])], console, header=False, wrap=False
    )
    return 0
