"""The table of methods, ``graphseq/methods.toml``: reading it, checking it, and the parts of documents made from it.

Documentation, not a registry: nothing is built from it. Nothing heavy is imported here, so that commands which only
name things stay quick.
"""

import difflib
import importlib
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from graphseq.core.lazy import public_names

TABLE = Path(__file__).parents[1] / "methods.toml"
STATES = ("complete", "partly", "planned")
BEGIN = "<!-- methods: written by `graphseq list methods --markdown docs/methods.md` -->"
BEGIN_OVERVIEW = "<!-- overview of methods: written by `graphseq list methods --markdown README.md` -->"
END = "<!-- end of methods -->"


class MethodError(ValueError):
    """An entry of the table of methods that is wrong; the message names the entry and the key.

    Example:
        >>> raise MethodError("methods.toml, [pres], classes: there is no graphseq.nn.PRES")
        Traceback (most recent call last):
        graphseq.core.methods.MethodError: methods.toml, [pres], classes: there is no graphseq.nn.PRES
    """


@dataclass(frozen=True)
class Method:
    """One entry of the table.

    Args:
        key: name of the entry.
        title: name of the method, as tables show it.
        papers: arXiv numbers; the first is that of the paper which introduced the method.
        claim: main claim of the paper, in one sentence.
        state: ``complete``, ``partly`` or ``planned``.
        classes: public import paths of its classes; empty while the method is planned.
        configs: files below ``configs/``, without ``.yaml``.
        experiments: names of ``graphseq bench``.
        deviations: differences from the paper and their reasons; empty only while the method is planned.
        code: address of the authors' code, if it was consulted.
        licence: licence of that code, if known.
        family: group under which the overview names it.

    Example:
        >>> Method("gin", "GIN", ("1810.00826",), "Sums tell most graphs apart.", "planned").classes
        ()
    """

    key: str
    title: str
    papers: tuple[str, ...]
    claim: str
    state: str
    classes: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    deviations: str = ""
    code: str = ""
    licence: str = ""
    family: str = "other"


_LISTS = ("papers", "classes", "configs", "experiments")
_REQUIRED = ("title", "papers", "claim", "state")
_KEYS = tuple(field.name for field in fields(Method) if field.name != "key")


def read_methods(path: Path = TABLE) -> tuple[Method, ...]:
    """Return the entries of a table of methods in order, after the checks that need no other files.

    Args:
        path: a TOML file; default that of the package.

    Raises:
        MethodError: if the file is no TOML, an entry occurs twice, a key is unknown, missing, empty or has
            a value of another type, the state is none of the three, or a class does not exist.

    Example:
        >>> {method.key: method.papers for method in read_methods()}["pres"]
        ('2402.04284',)
    """
    try:
        entries = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:  # names line and column, and an entry or key that stands twice
        raise MethodError(f"{path.name} is no valid table of methods: {error}") from None
    known: dict[str, Collection[str]] = {}
    return tuple(_method(f"{path.name}, [{key}]", key, entry, known) for key, entry in entries.items())


def _method(where: str, key: str, entry: Any, known: dict[str, Collection[str]]) -> Method:
    if not isinstance(entry, dict):
        raise MethodError(f"{where} is {entry!r}; each entry is a table of keys")
    for name, value in entry.items():
        if name not in _KEYS:
            raise MethodError(f"{where}: there is no key {name}{_close(name, _KEYS)}; keys are {', '.join(_KEYS)}")
        _check_value(f"{where}, {name}", name, value)
    missing = [name for name in _REQUIRED if name not in entry]
    if missing:
        raise MethodError(f"{where}: {', '.join(missing)} must be given")
    if entry["state"] not in STATES:
        raise MethodError(f"{where}, state is {entry['state']!r}; it must be one of {', '.join(STATES)}")
    planned = entry["state"] == "planned"
    for name in ("classes", "deviations"):
        if planned and name in entry:
            raise MethodError(f"{where}, {name}: a planned method has none yet; set its state to partly or complete")
        if not planned and name not in entry:
            raise MethodError(f"{where}, {name} must be given, since its state is {entry['state']}")
    if "licence" in entry and "code" not in entry:
        raise MethodError(f"{where}, licence is given without code; name the address of the code")
    for path in entry.get("classes", ()):
        _check_class(f"{where}, classes", path, known)
    values: dict[str, Any] = {name: tuple(value) if name in _LISTS else value for name, value in entry.items()}
    return Method(key, **values)


def _check_value(where: str, name: str, value: Any) -> None:
    if name not in _LISTS:
        if not isinstance(value, str) or not value.strip():
            raise MethodError(f"{where} is {value!r}; it must be text")
        return
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise MethodError(f"{where} is {value!r}; it must be a list of texts, left out where there are none")
    twice = sorted({item for item in value if value.count(item) > 1})
    if twice:
        raise MethodError(f"{where}: {', '.join(twice)} stands twice")


def _check_class(where: str, path: str, known: dict[str, Collection[str]]) -> None:
    room, _, name = path.rpartition(".")
    if room not in known:
        known[room] = ()
        if room.startswith("graphseq."):  # importing a room loads none of its files
            try:
                importlib.import_module(room)
                known[room] = public_names(room)
            except ImportError:
                pass
    if name not in known[room]:
        raise MethodError(
            f"{where}: there is no {path}{_close(name, known[room])}; give a path such as graphseq.nn.Name"
        )


def _close(name: str, names: Collection[str]) -> str:
    found = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {found[0]}?" if found else ""


def check_files(methods: Sequence[Method], configs: Path, experiments: Collection[str]) -> None:
    """Check that the configs and experiments of methods exist.

    Args:
        methods: the entries.
        configs: the folder of configs.
        experiments: names of all experiments.

    Raises:
        MethodError: if one does not exist, naming the entry and the key.

    Example:
        >>> method = Method("gin", "GIN", ("1810.00826",), "It counts.", "partly", experiments=("effect.gin",))
        >>> check_files([method], Path("configs"), ["effect.gin_tu"])
        Traceback (most recent call last):
        graphseq.core.methods.MethodError: [gin], experiments: there is no effect.gin, did you mean effect.gin_tu?
    """
    for method in methods:
        for config in method.configs:
            if not (configs / f"{config}.yaml").is_file():
                names = [path.relative_to(configs).with_suffix("").as_posix() for path in configs.rglob("*.yaml")]
                raise MethodError(f"[{method.key}], configs: there is no {config}{_close(config, names)}")
        for name in method.experiments:
            if name not in experiments:
                raise MethodError(f"[{method.key}], experiments: there is no {name}{_close(name, experiments)}")


def markdown(methods: Sequence[Method]) -> str:
    """Return the methods that exist as a Markdown table, and those that are planned as a list below it.

    Args:
        methods: the entries.

    Example:
        >>> print(markdown([Method("gin", "GIN", ("1810.00826",), "It counts.", "planned")]))
        Planned: GIN ([1810.00826](https://arxiv.org/abs/1810.00826)).
    """
    lines: list[str] = []
    there = [method for method in methods if method.state != "planned"]
    if there:
        lines = ["| method | classes | paper | configs | experiments |", "|---|---|---|---|---|"]
    for method in there:
        title = method.title + (" (in part)" if method.state == "partly" else "")
        classes = ", ".join(f"`{path.removeprefix('graphseq.')}`" for path in method.classes)
        experiments = ", ".join(f"`{name}`" for name in method.experiments)
        cells = (title, classes, _links(method), ", ".join(f"`{config}`" for config in method.configs), experiments)
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    planned = [f"{method.title} ({_links(method)})" for method in methods if method.state == "planned"]
    if planned:
        lines += [""] if lines else []
        lines.append(f"Planned: {'; '.join(planned)}.")
    return "\n".join(lines)


def overview(methods: Sequence[Method]) -> str:
    """Return the families of methods as a Markdown table: the titles that exist, and the number of planned ones.

    Args:
        methods: the entries.

    Example:
        >>> print(overview([Method("gin", "GIN", ("1810.00826",), "It counts.", "planned", family="graphs")]))
        | family | methods | planned |
        |---|---|---|
        | graphs |  | 1 |
    """
    lines = ["| family | methods | planned |", "|---|---|---|"]
    for family in dict.fromkeys(method.family for method in methods):
        group = [method for method in methods if method.family == family]
        there = [method for method in group if method.state != "planned"]
        titles = [method.title + (" (in part)" if method.state == "partly" else "") for method in there]
        planned = str(len(group) - len(there) or "")
        lines.append(
            "| " + " | ".join(cell.replace("|", r"\|") for cell in (family, "; ".join(titles), planned)) + " |"
        )
    return "\n".join(lines)


def _links(method: Method) -> str:
    return ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in method.papers)


def replace_table(text: str, methods: Sequence[Method]) -> str:
    r"""Return a Markdown document with the part between its markers replaced by the overview or the table of methods.

    Args:
        text: the document, which holds :data:`BEGIN` for the table, or :data:`BEGIN_OVERVIEW` for the overview, and
            :data:`END` after it, once each.
        methods: the entries.

    Raises:
        MethodError: if the document does not hold one pair of markers, in this order.

    Example:
        >>> replace_table(f"{BEGIN}\nold\n{END}", []) == f"{BEGIN}\n\n\n\n{END}"
        True
    """
    markers = [marker for marker in (BEGIN, BEGIN_OVERVIEW) if marker in text]
    once = len(markers) == 1 and text.count(markers[0]) == text.count(END) == 1
    if not once or text.index(markers[0]) > text.index(END):
        raise MethodError(
            f"the document must hold one of the lines {BEGIN} and {BEGIN_OVERVIEW}, and {END} after it, once each"
        )
    before, _, rest = text.partition(markers[0])
    made = markdown(methods) if markers[0] == BEGIN else overview(methods)
    return f"{before}{markers[0]}\n\n{made}\n\n{END}{rest.partition(END)[2]}"
