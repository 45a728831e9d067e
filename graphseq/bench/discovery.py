"""Discovery of experiments by file name: no list of them is kept.

An experiment is a Python file ``experiments/<family>/<name>.py`` whose top level assigns ``effect`` or ``speed``; its
name is that of the variable and of the file, as in ``effect.pres`` for ``effect = …`` in ``experiments/pres/pres.py``.
"""

import ast
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from graphseq.bench.experiment import Kind

if TYPE_CHECKING:
    from graphseq.bench.experiment import Experiment

__all__ = ["experiments", "load_experiment", "load_file", "summary"]

_FOLDER = "experiments"


def _assigned(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the expressions that a file assigns to ``effect`` and ``speed`` at its top level."""
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id in get_args(Kind)
    }


def experiments(folder: Path | None = None) -> dict[str, Path]:
    """Return the names of all experiments below a folder, each with its file; nothing is imported.

    Args:
        folder: folder with a sub-folder for each family; None for ``experiments`` in the current folder. If it does not
            exist, the result is empty.

    Raises:
        ValueError: if two files define experiments of the same name.

    Example:
        >>> experiments(Path("no_such_folder"))
        {}
    """
    root = Path(_FOLDER) if folder is None else folder
    found: dict[str, Path] = {}
    for path in sorted(root.glob("*/*.py")):
        text = path.read_text("utf-8")
        if not any(f"\n{kind} = " in text or f"\n{kind}: " in text for kind in get_args(Kind)):
            continue  # parsing every peer takes longer than listing may
        for kind in _assigned(ast.parse(text, filename=str(path))):
            name = f"{kind}.{path.stem}"
            if name in found:
                raise ValueError(f"{found[name]} and {path} both define {name}; rename one of the files")
            found[name] = path
    return dict(sorted(found.items()))


def summary(path: Path, kind: str) -> str:
    r"""Return the description of an experiment: the docstring of its class, or that of its file with the source.

    Args:
        path: file of the experiment.
        kind: ``"effect"`` or ``"speed"``.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "coin.py"
        >>> _ = path.write_text("'Heads against tails.'\neffect = Effect(source='arXiv 1810.00826')")
        >>> summary(path, "effect").splitlines()
        ['Heads against tails.', '', 'arXiv 1810.00826']
    """
    tree = ast.parse(path.read_bytes(), filename=str(path))
    value = _assigned(tree).get(kind)
    text = ast.get_docstring(tree) or ""
    if isinstance(value, ast.Call):
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and isinstance(value.func, ast.Name) and node.name == value.func.id:
                return ast.get_docstring(node) or text
        for keyword in value.keywords:
            if keyword.arg == "source" and isinstance(keyword.value, ast.Constant):
                text += f"\n\n{keyword.value.value!s}"
    return text


def load_file(path: Path, kind: str | None = None) -> "Experiment":
    """Import a file and return its experiment.

    Below a folder named ``experiments`` the file is imported as ``experiments.<family>.<name>``, so that experiments
    may share code; any other file is imported by its own name, with its folder on the import path, as Python does for
    a script.

    Args:
        path: a Python file.
        kind: ``effect`` or ``speed``, for a file that defines both; None for a file that defines one.

    Raises:
        ValueError: if there is no such file, another module of its name is already imported, or it defines no
            experiment, two of them, or one of another name.

    Example:
        >>> load_file(Path("nowhere.py"))
        Traceback (most recent call last):
        ValueError: there is no file nowhere.py
    """
    from graphseq.bench.experiment import Experiment

    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    place = path.resolve()
    shared = place.parents[1].name == _FOLDER
    root = place.parents[2 if shared else 0]
    module = f"{_FOLDER}.{place.parent.name}.{place.stem}" if shared else place.stem
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    made = importlib.import_module(module)
    if Path(str(made.__file__)).resolve() != place:
        raise ValueError(f"{path} cannot be imported as {module}, which is {made.__file__}; rename the file")
    kinds = [name for name in get_args(Kind) if isinstance(getattr(made, name, None), Experiment)]
    if kind is None and len(kinds) == 1:
        kind = kinds[0]
    if kind not in kinds:
        raise ValueError(
            f"{path} assigns {' and '.join(kinds) or 'neither effect nor speed'} at its top level; "
            f"{f'{kind} is' if kind else 'one of the two is'} needed"
        )
    experiment: Experiment = getattr(made, str(kind))
    if experiment.name != f"{kind}.{place.stem}":
        raise ValueError(f"{path} defines {experiment.name!r}; in this file its name is '{kind}.{place.stem}'")
    experiment.origin = (place, str(kind))
    if not getattr(experiment, "summary", True):
        experiment.summary = (made.__doc__ or "").strip().partition("\n")[0]  # type: ignore[attr-defined]
    return experiment


def load_experiment(name: str) -> "Experiment":
    """Import and return one experiment.

    Args:
        name: a name of :func:`experiments`, or the path of a Python file that defines one.

    Raises:
        ValueError: if there is no experiment of that name, no folder ``experiments``, or no such file.

    Example:
        >>> load_experiment("my_claim.py")
        Traceback (most recent call last):
        ValueError: there is no file my_claim.py
    """
    if name.endswith(".py"):
        return load_file(Path(name))
    if not Path(_FOLDER).is_dir():
        raise ValueError(
            f"there is no folder {_FOLDER}/ in {Path.cwd()}; run `graphseq bench {name}` from the root of a checkout "
            "of the repository, or give the path of a file of your own"
        )
    known = experiments()
    if name not in known:
        raise ValueError(f"there is no experiment {name!r}; `graphseq bench --list` names them")
    return load_file(known[name], name.partition(".")[0])
