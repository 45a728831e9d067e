"""Docstrings and arXiv numbers read from source files, so that listing names imports nothing."""

import ast
import importlib.util
import re
from pathlib import Path

__all__ = ["arxiv_id", "first_line", "module_docstrings", "module_file"]

_ARXIV = re.compile(r"arxiv(?:\.org/abs/|\s*:\s*|\s+)(\d{4}\.\d{4,5})", re.IGNORECASE)


def module_file(module: str) -> Path | None:
    """Return the source file of a module of an importable package, without importing the module itself.

    Args:
        module: dotted name.

    Example:
        >>> module_file("graphseq.bench.docstrings").name
        'docstrings.py'
    """
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def module_docstrings(file: Path) -> dict[str, str]:
    """Return the docstring of each top-level name of a file; that of a constant is the string below it.

    A name that ``__all__`` re-exports from another module has its docstring there.

    Args:
        file: a Python source file.

    Example:
        >>> module_docstrings(module_file("graphseq.bench.docstrings"))["first_line"][:25]
        'Return the first line of '
    """
    body = ast.parse(file.read_bytes(), filename=str(file)).body
    found: dict[str, str] = {}
    public: set[object] = set()
    for index, node in enumerate(body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            below = body[index + 1] if index + 1 < len(body) else None
            text = ""
            if (
                isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                text = below.value.value
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id] = text
                    if target.id == "__all__" and isinstance(node.value, ast.List):
                        public = {item.value for item in node.value.elts if isinstance(item, ast.Constant)}
    for imported in (node for node in body if isinstance(node, ast.ImportFrom) and node.module):
        for alias in imported.names:
            origin = module_file(str(imported.module)) if alias.name in public - found.keys() else None
            if origin is not None:
                found[alias.name] = module_docstrings(origin).get(alias.name, "")
    return found


def first_line(docstring: str) -> str:
    r"""Return the first line of a docstring.

    Args:
        docstring: a whole docstring, possibly empty.

    Example:
        >>> first_line(" A layer.\n\nMore.")
        'A layer.'
    """
    return docstring.strip().partition("\n")[0].strip()


def arxiv_id(docstring: str) -> str:
    """Return the first arXiv number a docstring names, or the empty string.

    Args:
        docstring: the whole of it.

    Example:
        >>> arxiv_id("Source: arXiv 2411.03884, eq. 5.")
        '2411.03884'
    """
    match = _ARXIV.search(docstring)
    return match.group(1) if match else ""
