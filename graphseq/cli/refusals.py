"""Refusals on the command line in at most six lines: the last cause, near names, and the names that are accepted.

jsonargparse reports a wrong entry of a config as a tree, with one branch for each type that the entry could have had.
The cause stands at the deepest leaf; ``--verbose`` prints the whole tree, or the traceback of an exception.
"""

import importlib
import inspect
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from graphseq.bench.building import ConfigError
from graphseq.core.errors import CheckpointError, DataError, OptionalDependencyError, UnsupportedStrategyError

__all__ = ["ACTIONABLE", "UsageError", "reported"]


class UsageError(ValueError):
    """Words of a command, or entries of its config, that do not say what to do.

    Args:
        message: whole message of jsonargparse.
        options: options of the command.

    Example:
        >>> raise UsageError("unrecognized arguments: --modle=3", ["model"])
        Traceback (most recent call last):
        graphseq.cli.refusals.UsageError: unrecognized arguments: --modle=3
    """

    def __init__(self, message: str, options: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.options = list(options)


ACTIONABLE = (
    CheckpointError,
    ConfigError,
    DataError,
    FloatingPointError,
    OptionalDependencyError,
    UnsupportedStrategyError,
)
"""Errors whose message names the cause and what to do: the command line prints it without a traceback."""

_OTHERS = (ImportError, MisconfigurationException, OSError, TypeError, ValueError)
"""Errors of a constructor, a file or a value: the message is printed, and the traceback on request."""

_MOST_LINES = 6
_MOST_NAMES = 300
"""Characters of a list of accepted names."""

_BOILERPLATE = (
    "Does not validate against",
    "Errors:",
    "Expected a path but",
    "Subclass types",
    "a class path",
    "a dict with",
)


TERMINATED = 143
"""Exit status that shells report for a process that SIGTERM has ended."""


def reported(command: str, arguments: Sequence[str], action: Callable[[list[str]], Any]) -> int:
    """Run an action on the words of a command, print what it refuses, and return the exit status.

    Args:
        command: name of the command, with which messages begin.
        arguments: words of the command line; ``--verbose`` among them asks for whole messages and tracebacks.
        action: function of the words without ``--verbose``.

    Returns:
        0 if the action was done, 1 if it failed, 2 if the words were wrong, 143 if SIGTERM ended it.

    Example:
        >>> reported("fit", [], print)
        []
        0
    """
    try:
        action([word for word in arguments if word != "--verbose"])
    except SystemExit as stop:  # --help and --print_config
        if type(stop).__name__ == "SIGTERMException":  # Lightning's, which has no exit status
            print(f"graphseq {command}: ended by SIGTERM; --ckpt_path last continues", file=sys.stderr)
            return TERMINATED
        return stop.code if isinstance(stop.code, int) else 2
    except BrokenPipeError:
        raise
    except (*ACTIONABLE, *_OTHERS) as error:
        wrong_words = isinstance(error, UsageError)
        if "--verbose" not in arguments:
            print(f"graphseq {command}: " + "\n".join(_short(error)), file=sys.stderr)
        elif wrong_words:
            print(f"graphseq {command}: {error}", file=sys.stderr)
        else:
            traceback.print_exception(error)
        return 2 if wrong_words else 1
    return 0


def _short(error: BaseException) -> list[str]:
    """Lines of a refusal, of which the last one tells how to see more where something was left out."""
    if isinstance(error, UsageError):
        lines, more = refusal(str(error), error.options), "--verbose prints the whole message"
    else:
        lines, more = _message(error), "--verbose prints the traceback"
        if isinstance(error, ACTIONABLE) and len(lines) <= _MOST_LINES:
            return lines
    return [*lines[: _MOST_LINES - 1], more]


def _message(error: BaseException) -> list[str]:
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return [line for line in text.splitlines() if line.strip()]


@dataclass(frozen=True)
class _Cause:
    """A leaf of jsonargparse's tree.

    Args:
        text: what is wrong.
        depth: number of characters by which it is indented.
        keys: keys of the config that lead to it.
        owner: class whose argument it is about; empty for the command itself.
        kinds: types that the entry may have, as jsonargparse writes them.
        value: what was given; empty if the tree does not tell.
    """

    text: str
    depth: int
    keys: tuple[str, ...]
    owner: str
    kinds: str
    value: str

    @property
    def weight(self) -> int:
        if self.text.startswith("Expected a <class 'NoneType'>"):
            return 0
        return 1 if self.text.startswith(("Expected a ", "Not a valid subclass")) else 2


def _causes(message: str) -> list[_Cause]:
    found: list[_Cause] = []
    above: list[tuple[int, str, str]] = []  # indent, kind, text
    for line in message.splitlines():
        text = line.strip()
        if not text:
            continue
        depth = len(line) - len(line.lstrip())
        if text.startswith("- "):
            text, depth = text[2:], depth + 2
        above = [entry for entry in above if entry[0] < depth or (entry[0] == depth and entry[1] == "kinds")]
        if key := re.match(r'Parser key "(.+?)":\s*(.*)', text):
            above.append((depth, "key", key[1]))
            text = key[2]
        elif named := re.match(r"Problem with given class_path '(.+?)':\s*(.*)", text):
            above.append((depth, "class", named[1]))
            text = named[2]
        elif text.startswith("Subtypes: "):
            above.append((depth, "kinds", text.removeprefix("Subtypes: ")))
            continue
        elif text.startswith("Given value"):
            given = text.partition(": ")[2]
            if not text.startswith("Given value type"):
                found = [
                    _Cause(**{**vars(each), "value": given}) if each.depth == depth + 4 and not each.value else each
                    for each in found
                ]
            continue
        if not text or text.startswith(_BOILERPLATE):
            continue
        keys = tuple(entry[2] for entry in above if entry[1] == "key")
        owner = next((entry[2] for entry in reversed(above) if entry[1] == "class"), "")
        # types listed above the nearest key are those of another entry
        nearest = next((entry for entry in reversed(above) if entry[1] in ("key", "kinds")), None)
        kinds = nearest[2] if nearest is not None and nearest[1] == "kinds" else ""
        if "expects a function or a callable class: " in text:
            text = text.split("expects a function or a callable class: ", 1)[1]
            called = re.search(r"class_path='(.+?)'", text)
            owner = called[1] if called else owner
        text, _, value = text.partition(". Got value: ")
        found.append(_Cause(text, depth, keys, owner, kinds, value))
    return found


def refusal(message: str, options: Sequence[str] = ()) -> list[str]:
    r"""Return the lines that say what is wrong in a message of jsonargparse, and what would be right.

    Args:
        message: message of an ``ArgumentError``.
        options: options of the command, for messages about an unknown one.

    Example:
        >>> refusal("Parser key \"data\":\n  Problem with given class_path 'graphseq.models.MLP':\n"
        ...         "    Option 'out_featurs' is not accepted")[:2]
        ['data: MLP has no argument out_featurs', 'did you mean out_features or in_features?']
    """
    causes = _causes(message)
    is_tree = 'Parser key "' in message or "Problem with given class_path" in message
    if not causes or (len(causes) > 1 and not is_tree):
        return [line.strip() for line in message.splitlines() if line.strip()]
    deepest = max(each.depth for each in causes if each.weight or len(causes) == 1)
    level = [each for each in causes if each.depth == deepest]
    best = max(level, key=lambda each: each.weight)
    if best.weight < 2 and (others := [each for each in causes if each.weight == 2]):
        best = max(others, key=lambda each: each.depth)
    where = ".".join(best.keys)
    at = f"{where}: " if where else ""
    for pattern, explain in _EXPLANATIONS:
        if match := re.match(pattern, best.text, re.DOTALL):
            return explain(at, best, match, options)
    if best.weight < 2:
        return _wrong_value(at, level)
    return [f"{at}{best.text}"]


def _near(name: str, names: Iterable[str]) -> list[str]:
    """Return ``did you mean`` and the accepted names, one line each."""
    names = sorted(set(names))
    folded: dict[str, str] = {}
    for each in names:
        folded.setdefault(each.lower(), each)
    close = get_close_matches(name.lower(), folded, n=2, cutoff=0.6)
    lines = [f"did you mean {' or '.join(folded[each] for each in close)}?"] if close else []
    if names:
        lines.append("accepted: " + textwrap.shorten(", ".join(names), _MOST_NAMES, placeholder=" …"))
    return lines


def _found(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):
        return None


def _arguments_of(owner: str, called: bool) -> list[str]:
    """Names of a class's arguments, those of its bases too; without the first one if it is called with that."""
    kind = _found(owner)
    if not callable(kind):
        return []
    parser = ArgumentParser(exit_on_error=False)
    try:
        names = parser.add_class_arguments(kind, fail_untyped=False, sub_configs=False)
    except Exception:  # whatever hinders a parser: the signature is the next best
        names = [name for name in inspect.signature(kind).parameters if name != "self"]
    return names[1:] if called else names


def _unknown_argument(at: str, cause: _Cause, match: re.Match[str], options: Sequence[str]) -> list[str]:
    word = match["name"]
    name = word.lstrip("-").partition("=")[0]
    if not cause.owner:
        return _unknown_option(word, name, options)
    first = name.partition(".")[0]
    short = cause.owner.rpartition(".")[2]
    called = "Callable" in cause.kinds
    return [f"{at}{short} has no argument {first}", *_near(first, _arguments_of(cause.owner, called))]


def _unknown_option(word: str, name: str, options: Sequence[str]) -> list[str]:
    if Path(word).suffix in (".yaml", ".yml", ".json"):
        return [f"{word} stands alone; configs are given as --config {word}"]
    head = name.rpartition(".")[0]
    siblings = [option for option in options if head and option.rpartition(".")[0] == head]
    top = {option.partition(".")[0] for option in options}
    close = _near(name, options)[:-1]
    accepted = _near(name, siblings or top)[-1:]
    return [f"there is no option {name}", *close, *accepted]


def _unknown_class(at: str, cause: _Cause, match: re.Match[str], options: Sequence[str]) -> list[str]:
    module, name = match["module"], match["name"]
    try:
        names = {each: getattr(importlib.import_module(module), each, None) for each in dir(sys.modules[module])}
    except (ImportError, KeyError):
        names = {}
    bases = _bases(cause.kinds)
    fitting = [each for each, kind in names.items() if _is_kind(kind, bases) and not each.startswith("_")]
    return [f"{at}{module} has no class {name}", *_near(name, fitting)]


def _unknown_short_name(at: str, cause: _Cause, match: re.Match[str], options: Sequence[str]) -> list[str]:
    literal = re.search(r"Literal\[(.+?)\]", cause.kinds)
    choices = re.findall(r"'([^']*)'", literal[1]) if literal else []
    names = {kind.__name__ for base in _bases(cause.kinds) for kind in _descendants(base)}
    return [
        f"{at}{match['name']!r} is not accepted",
        *_near(match["name"], choices or [name for name in names if name[0] != "_"]),
    ]


def _bases(kinds: str) -> tuple[type, ...]:
    """Classes that an entry may be of, from jsonargparse's description; argument types of callables left out."""
    kinds = re.sub(r"Callable\[\[.*?\], ", "", kinds)
    named = [path for path in re.findall(r"[A-Za-z_][\w.]*\.\w+", kinds) if not path.startswith(("typing.", "collect"))]
    return tuple(kind for path in named if isinstance(kind := _found(path), type))


def _is_kind(kind: object, bases: tuple[type, ...]) -> bool:
    return isinstance(kind, type) and (not bases or issubclass(kind, bases))


def _descendants(base: type[Any]) -> list[type[Any]]:
    return [each for child in base.__subclasses__() for each in (child, *_descendants(child))]


def _missing(at: str, cause: _Cause, match: re.Match[str], options: Sequence[str]) -> list[str]:
    names = match["names"]
    if cause.owner:
        return [f"{at}{cause.owner.rpartition('.')[2]} needs {names}"]
    plain = " and ".join(f"--{name.strip().rpartition('.')[2]}" for name in names.split(","))
    return [f"{plain} must be given; --config FILE can hold them", "configs to begin with: graphseq list configs"]


def _no_file(at: str, cause: _Cause, match: re.Match[str], options: Sequence[str]) -> list[str]:
    path = Path(match["path"])
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    beside = [each.name for each in path.parent.glob(f"*{path.suffix or '.yaml'}")] if path.parent.is_dir() else []
    return [f"{at}there is no file {shown}", *_near(path.name, beside)[:-1]]


def _wrong_value(at: str, level: Sequence[_Cause]) -> list[str]:
    """One value that is of none of the accepted types."""
    kinds, choices = [], []
    for each in level:
        expected = each.text.removeprefix("Expected a ")
        if literal := re.match(r"typing\.Literal\[(.+)\]", expected):
            choices += re.findall(r"'([^']*)'", literal[1])
        elif named := re.match(r"<class '(.+)'>", expected):
            kinds.append(
                {"NoneType": "null"}.get(named[1], named[1].rpartition(".")[2] if "." in named[1] else named[1])
            )
        elif each.text.startswith("Not a valid subclass of "):
            kinds.append(f"a {each.text.removeprefix('Not a valid subclass of ')}, as class_path with init_args")
        elif not expected.startswith("dot import"):
            kinds.append(expected)
    value = textwrap.shorten(next((each.value for each in level if each.value), ""), 100, placeholder=" …")
    given = f"{at}{value!r} is not accepted" if value else f"{at}the value is not accepted"
    return [given, *(_near(value, choices) if choices else [f"accepted: {', '.join(dict.fromkeys(kinds))}"])]


_EXPLANATIONS: tuple[tuple[str, Callable[[str, _Cause, re.Match[str], Sequence[str]], list[str]]], ...] = (
    (r"unrecognized arguments: (?P<name>\S+)", _unknown_argument),
    (r"Option '(?P<name>.+?)' is not accepted", _unknown_argument),
    (r"Subcommand '.+?' does not accept option '(?P<name>.+?)'", _unknown_argument),
    (r"(Key|Option) '(?P<name>.+?)' .*not expected", _unknown_argument),
    (r"module '(?P<module>.+?)' has no attribute '(?P<name>.+?)'", _unknown_class),
    (r"Expected a dot import path string: (?P<name>.+)", _unknown_short_name),
    (r"the following arguments are required: (?P<names>.+)", _missing),
    (r"File does not exist: '(?P<path>.+?)'", _no_file),
)
