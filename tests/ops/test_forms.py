"""Which form of an operation is taken: the compiled one on a processor with numba, otherwise torch operations."""

import ast
from pathlib import Path

import pytest
import torch

import graphseq.ops
from graphseq.ops import attention, gru, lookup, moments, nodes, processor, time_encoding

OPS = Path(graphseq.ops.__file__).parent
X, NODE, MASK = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
TIME = torch.ones(1), torch.zeros(1)
CALLS = {  # operation -> (function of the forms, form in torch operations, call)
    attention: (
        "neighbor_attention",
        "fused",
        lambda: attention.neighbor_attention(torch.ones(1, 1, 2), X, NODE[None], X, torch.ones(1, 1, 0), MASK, *TIME),
    ),
    gru: (
        "gate",
        "fused",
        lambda: gru.mail_gru(X, X, NODE, torch.ones(3, 3), torch.ones(3, 1), *2 * [torch.ones(3)], *TIME),
    ),
    lookup: (
        "recent",
        "plain",
        lambda: lookup.recent(lookup.EventIndex(NODE - 1, NODE, NODE, torch.ones(0, 0)), NODE, 0, 1),
    ),
    moments: (
        "extrapolate",
        "plain",
        lambda: moments.extrapolate(NODE, X, X[0], None, moments.RunningSums(X, X, X[None], None)),
    ),
    nodes: ("distinct", "plain", lambda: nodes.distinct(NODE, NODE.clone())),
    time_encoding: ("cosines_and_sines", "fused", lambda: time_encoding.cosines_and_sines(NODE, *TIME)),
}


@pytest.mark.parametrize("numba", [True, False])
@pytest.mark.parametrize("operation", CALLS, ids=lambda operation: operation.__name__.split(".")[-1])
def test_one_rule_chooses_the_form(operation, numba, monkeypatch):
    name, other, call = CALLS[operation]
    monkeypatch.setattr(processor, "_numba_imports", lambda: numba)
    taken = []
    for form in ("compiled", other):
        real = getattr(getattr(operation, form), name)
        watched = lambda *given, form=form, real=real: taken.append(form) or real(*given)  # noqa: E731
        monkeypatch.setattr(getattr(operation, form), name, watched)
    call()
    assert taken == ["compiled" if numba else other]


def test_layers_call_operations_and_never_a_form():
    forms = {"plain", "fused", "compiled"}
    for path in OPS.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("graphseq.ops"):
                named = {*node.module.split("."), *(alias.name for alias in node.names)}
                assert OPS in path.parents or not forms & named, f"{path} imports a form: {ast.unparse(node)}"
