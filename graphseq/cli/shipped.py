"""Configs and examples that come with the package: found by name, listed, and copied to start from."""

import difflib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

__all__ = ["UnknownConfigError", "find_config", "init", "shipped_files", "shipped_folder", "with_config_files"]

_PACKAGE = Path(__file__).parents[1]
_SUFFIXES = {"configs": ".yaml", "examples": ".py"}


class UnknownConfigError(ValueError):
    """A name that is neither a file nor a config of the package, or a file that is no config.

    Example:
        >>> raise UnknownConfigError("there is no config graph/gin")
        Traceback (most recent call last):
        graphseq.cli.shipped.UnknownConfigError: there is no config graph/gin
    """


def shipped_folder(kind: Literal["configs", "examples"]) -> Path:
    """Return the folder of the configs or examples that come with the package.

    Installed from a wheel, they lie inside the package; in a clone of the repository, beside it.

    Args:
        kind: which folder.

    Example:
        >>> shipped_folder("configs").name
        'configs'
    """
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def shipped_files(kind: Literal["configs", "examples"]) -> dict[str, Path]:
    """Return the configs or examples that come with the package by name: the path in their folder, without suffix.

    Args:
        kind: which files.

    Example:
        >>> shipped_files("configs")["graph/gine_digits"].name
        'gine_digits.yaml'
    """
    folder, suffix = shipped_folder(kind), _SUFFIXES[kind]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob(f"*{suffix}"))}


def find_config(name: str) -> str:
    """Return the file that a word after ``--config`` means: one of the user, else one that comes with the package.

    Args:
        name: path of a file, with or without ``.yaml``, or name of a config of the package, such as
            ``graph/gine_digits``. A file in the working directory is preferred to a config of the package.

    Raises:
        UnknownConfigError: if the name has no suffix, and neither such a file nor such a config exists, or if the file
            cannot be read, is no mapping in YAML, or has a key twice.

    Example:
        >>> find_config("graph/gine_digit")
        Traceback (most recent call last):
        graphseq.cli.shipped.UnknownConfigError: there is no file graph/gine_digit and no config of that name; ...
    """
    path = Path(name)
    if path.is_file():
        _check_config(path)
        return name
    if path.suffix in (".yaml", ".yml", ".json") or "\n" in name or ":" in name:
        return name  # what is wrong with it, the parser says
    if Path(f"{name}.yaml").is_file():
        _check_config(Path(f"{name}.yaml"))
        return f"{name}.yaml"
    known = shipped_files("configs")
    if name in known:
        return str(known[name])
    raise UnknownConfigError(
        f"there is no file {name} and no config of that name; {_near(name, known)}`graphseq list configs` names them"
    )


def _check_config(path: Path) -> None:
    """Refuse a file that the parser would refuse without its name, or read in part: of two equal keys the last one."""
    import yaml

    try:
        root = yaml.compose(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError) as error:
        raise UnknownConfigError(f"{path} cannot be read as text: {error}") from error
    except yaml.YAMLError as error:
        raise UnknownConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        what = "empty" if root is None else "no mapping of keys to values"
        raise UnknownConfigError(f"{path} is {what}; `graphseq init` writes a config to start from")
    waiting: list[tuple[str, yaml.Node]] = [("", root)]
    while waiting:
        above, node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting += [(above, child) for child in node.value]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = f"{above}.{key.value}".lstrip(".")
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value != "<<" and key.value in lines:
                raise UnknownConfigError(
                    f"{path} has {name} twice, in line {lines[key.value]} and in line {line}; write each key once"
                )
            if isinstance(key, yaml.ScalarNode):
                lines[key.value] = line
            waiting.append((name, value))


def _near(name: str, known: dict[str, Path]) -> str:
    last = name.rpartition("/")[2]
    near = [other for other in known if other.rpartition("/")[2] == last] or difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}? " if near else ""


def with_config_files(arguments: Sequence[str]) -> list[str]:
    """Return words of a command line in which each value of ``--config`` is a file.

    Args:
        arguments: words after the name of the command.

    Raises:
        UnknownConfigError: if a value is neither a file nor a config of the package.

    Example:
        >>> words = with_config_files(["--config", "graph/gine_digits", "--seed_everything", "1"])
        >>> [Path(word).name for word in words]
        ['--config', 'gine_digits.yaml', '--seed_everything', '1']
    """
    words: list[str] = []
    for word in arguments:
        if words and words[-1] in ("--config", "-c"):
            words.append(find_config(word))
        elif word.startswith("--config="):
            words.append(f"--config={find_config(word.removeprefix('--config='))}")
        else:
            words.append(word)
    return words


_USAGE = """usage: graphseq init [NAME ...] [--folder FOLDER]

Copy configs and examples of the package to start from, graph/gine_digits and own_data_and_network unless others are
named. `graphseq list configs` and `graphseq list examples` name them. A file that exists is never overwritten.
"""


def init(arguments: Sequence[str]) -> int:
    """Run ``graphseq init`` and return the exit status: 0, 1 where a file is in the way, 2 for wrong arguments.

    Args:
        arguments: names of configs and examples, and ``--folder`` with the folder to copy them to.

    Example:
        >>> import tempfile
        >>> init(["graph/gine_digits", "--folder", tempfile.mkdtemp()])  # doctest: +ELLIPSIS
        wrote ...gine_digits.yaml...
        0
    """
    words, folder = list(arguments), Path()
    if "--help" in words or "-h" in words:
        print(_USAGE, end="")
        return 0
    if "--folder" in words:
        place = words.index("--folder")
        if place == len(words) - 1:
            print("graphseq init: --folder needs the name of a folder", file=sys.stderr)
            return 2
        folder = Path(words[place + 1])
        del words[place : place + 2]
    known = {**shipped_files("configs"), **shipped_files("examples")}
    for name in words:
        if name not in known:
            hint = _near(name, known) or "`graphseq list configs` and `graphseq list examples` name them"
            print(f"graphseq init: there is no config or example {name}; {hint}", file=sys.stderr)
            return 2
    sources = [known[name] for name in words or ("graph/gine_digits", "own_data_and_network")]
    targets = [folder / source.name for source in sources]
    try:
        there = [str(target) for target in targets if target.exists()]
        if there:
            raise FileExistsError(f"{', '.join(there)} exists and is left as it is; name another place with --folder")
        folder.mkdir(parents=True, exist_ok=True)
        for source, target in zip(sources, targets, strict=True):
            with target.open("x", encoding="utf-8") as file:  # refuses a file that was made in the meantime
                file.write(source.read_text("utf-8"))
    except OSError as error:
        print(f"graphseq init: {error}", file=sys.stderr)
        return 1
    for target in targets:
        run = "graphseq fit --config" if target.suffix == ".yaml" else "python"
        print(f"wrote {target}; run it with: {run} {shlex.quote(str(target))}")
    return 0
