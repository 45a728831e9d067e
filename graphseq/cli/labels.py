"""Labels for the runs of a figure: what differs between the configs that the runs saved."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["differing_settings", "run_labels", "saved_settings"]

Settings: TypeAlias = dict[str, Any]

_MOST = 4  # settings in one label
_PLACES = ("config", "ckpt_path", "trainer.logger", "trainer.default_root_dir")  # where a run is, not what it does
_WRAPPERS = ("init_args", "class_path", "dict_kwargs")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{key}.{place}")
    else:
        yield key, value


def saved_settings(folder: Path) -> Settings:
    r"""Return the settings of the config that a run saved, by dotted key; empty if there is none that can be read.

    Args:
        folder: folder of the run, which holds ``config.yaml``.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.yaml").write_text("model: {init_args: {lr: 0.1}}\nckpt_path: null\n")
        >>> saved_settings(folder)
        {'model.init_args.lr': 0.1}
    """
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    if not isinstance(config, dict):
        return {}
    return {key: value for key, value in _leaves(config, "") if not _within(key, _PLACES)}


def _within(key: str, above: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in above)


def differing_settings(runs: Sequence[Settings]) -> list[Settings]:
    """Return the settings in which some runs differ, by the shortest keys that tell them apart.

    Arguments of classes that differ are left out: the name of the class says so already.

    Args:
        runs: settings of each run, by dotted key.

    Example:
        >>> differing_settings([{"model.lr": 0.1, "data.batch_size": 32}, {"model.lr": 0.2, "data.batch_size": 32}])
        [{'lr': 0.1}, {'lr': 0.2}]
    """
    keys = list(dict.fromkeys(key for run in runs for key in run))
    differing = [key for key in keys if any(run.get(key) != runs[0].get(key) for run in runs)]
    classes = [key.removesuffix("class_path") + "init_args" for key in differing if key.endswith(".class_path")]
    differing = [key for key in differing if not _within(key, classes)]
    names = _short([[part for part in key.split(".") if part not in _WRAPPERS and not part.isdigit()]
                    for key in differing])  # fmt: skip
    return [{name: run.get(key) for name, key in zip(names, differing, strict=True)} for run in runs]


def _short(paths: Sequence[Sequence[str]]) -> list[str]:
    """The last part of each path, and as many before it as it takes to differ from the others."""
    depth = [1] * len(paths)
    while True:
        names = [".".join(path[-used:]) for path, used in zip(paths, depth, strict=True)]
        again = [at for at, name in enumerate(names) if names.count(name) > 1 and depth[at] < len(paths[at])]
        if not again:
            return names
        for at in again:
            depth[at] += 1


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    text = str(value)
    return text.rpartition(".")[2] if text.replace(".", "").replace("_", "").isalnum() and "." in text else text


def run_labels(groups: Sequence[str], settings: Sequence[Settings], names: Sequence[str]) -> list[str]:
    """Return a label for each run: within a group of runs what differs between them, before it the group if several.

    Runs of a group that do not differ, or saved no config, get their name.

    Args:
        groups: group of each run, such as the name of its config.
        settings: settings of each run, by dotted key, see :func:`saved_settings`.
        names: distinct name of each run.

    Example:
        >>> run_labels(["gin", "gin", "mlp"], [{"model.lr": 0.1}, {"model.lr": 0.2}, {}], ["gin/0", "gin/1", "mlp"])
        ['gin, lr 0.1', 'gin, lr 0.2', 'mlp']
    """
    labels = list(names)
    several = len(set(groups)) > 1
    for group in dict.fromkeys(groups):
        members = [at for at, name in enumerate(groups) if name == group]
        if len(members) < 2:
            continue
        differing = differing_settings([settings[at] for at in members])
        for at, found in zip(members, differing, strict=True):
            shown = [f"{key} {_text(value)}" for key, value in found.items()][:_MOST]
            if shown and settings[at]:
                labels[at] = ", ".join([group, *shown] if several else shown)
    counts = Counter(labels)
    return [label if counts[label] == 1 or label == name else f"{label} ({name})"
            for label, name in zip(labels, names, strict=True)]  # fmt: skip
