"""``torch.export`` and ONNX of a graph classifier that is given ``batch`` and no ``ptr``, for graphs of other sizes."""

import pytest
import torch

from graphseq.models import GraphClassifier

EDGES = torch.tensor([[0, 1, 2, 3, 5, 6], [1, 2, 0, 4, 6, 7]])


def network(pool, conv):
    torch.manual_seed(0)
    options = {"edge_channels": 2} if conv == "gine" else {}
    return GraphClassifier(3, 4, hidden_channels=8, num_layers=2, conv=conv, pool=pool, **options).eval()


def sample(sizes, edges, conv):
    """Inputs of graphs with the given numbers of nodes."""
    generator = torch.Generator().manual_seed(sum(sizes))
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    inputs = {"x": torch.rand(len(batch), 3, generator=generator), "edge_index": edges, "batch": batch}
    if conv == "gine":
        inputs["edge_attr"] = torch.rand(edges.shape[1], 2, generator=generator)
    return inputs


def dynamic(inputs):
    nodes, edges = torch.export.Dim("nodes", min=2), torch.export.Dim("edges", min=2)
    axes = {"x": {0: nodes}, "edge_index": {1: edges}, "batch": {0: nodes}, "edge_attr": {0: edges}}
    return {name: axes[name] for name in inputs}


@pytest.mark.parametrize("conv", ["gin", "gine"])
@pytest.mark.parametrize("pool", ["sum", "mean", "max"])
def test_exported_network_takes_other_graphs(pool, conv):
    model, first = network(pool, conv), sample([3, 2, 4], EDGES, conv)
    exported = torch.export.export(model, (), first, dynamic_shapes=dynamic(first)).module()
    other = sample([5, 3, 2, 2], EDGES[:, :4] + 1, conv)
    with torch.no_grad():
        for inputs in (first, other):
            torch.testing.assert_close(exported(**inputs), model(**inputs))


@pytest.mark.parametrize("pool", [*(pytest.param(pool, marks=pytest.mark.slow) for pool in ("sum", "max")), "mean"])
def test_onnx_network_takes_other_graphs(pool, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"ONNX needs {package}: pip install graphseq[export]")
    import onnxruntime

    model, first = network(pool, "gin"), sample([3, 2, 4], EDGES, "gin")
    file = tmp_path / "network.onnx"
    torch.onnx.export(model, (), file, kwargs=first, dynamic_shapes=dynamic(first), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for inputs in (first, sample([5, 3, 2, 2], EDGES[:, :4] + 1, "gin")):
        (given,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(given), model(**inputs), atol=1e-5, rtol=1e-4)
