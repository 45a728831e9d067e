"""Recurrent networks on random graphs: layer by layer, beside loops over vertices and over steps.

All have the same weights, on a Watts-Strogatz graph with all edges rewired and a fifth of the vertices as neighbours;
edges over a layer enter the input of the cell, all sinks are read, and recurrent connections join all vertices of a
layer.

* *layered*: ``GraphRNN``: one call of torch's kernels for each layer, over all steps, with the masks applied once.
* *per vertex*: a loop over steps and vertices in Python; each vertex takes the outputs of the vertices with an edge
  into it from the same step, and the state of its layer from the step before.
* *masked each step*: a loop over steps and layers in Python, in which masks are applied in every step, as in the
  released code of the thesis.

Outputs and gradients of the inputs are compared before anything is timed.

Rule: (1) layered is at least 10 times as fast as per vertex at 64 vertices and 100 steps; (2) at least 3 times as fast
as masked each step at 50 vertices, 50 steps and batches of 128; (3) twice the steps take at most 2.3 times as long.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphseq.bench import AtLeast, Call, Check, Row, Scale, Setting, Speed, differentiated, same_outputs
from graphseq.nn import GraphRNN
from graphseq.sparsity import RandomDAG

__all__ = ["Subject", "cases", "speed"]

_INPUTS = 16
_WAYS = ("forward", "forward+backward")


@dataclass
class Subject:
    """A network with its input."""

    network: GraphRNN
    x: Tensor  # (B, T, D)
    backward: bool

    def call(self, function: Callable[[Tensor], Tensor]) -> Call:
        """Return a call that gives the outputs, and the gradient of the inputs if asked."""
        return differentiated(function, self.x, self.backward)


def cases(scale: Scale) -> list[Row]:
    """Return the cases: both sizes of the rule, and twice the steps."""
    if scale == "quick":
        small = {"vertices": 12, "steps": 4, "batch": 4, "direction": "forward+backward"}
        return [{**small, "cell": cell} for cell in ("gru", "lstm")]
    found = [
        {"vertices": 64, "steps": steps, "batch": 32, "direction": direction, "cell": "gru"}
        for steps in (100, 200)
        for direction in _WAYS
    ]
    cells = ("gru", "lstm", "rnn_tanh", "rnn_relu")
    thesis = {"vertices": 50, "steps": 50, "batch": 128, "direction": "forward+backward"}
    return found + [{**thesis, "cell": cell} for cell in cells]


def prepare(case: Row, setting: Setting) -> Subject:
    """Draw the graph, the weights and the input."""
    torch.manual_seed(0)
    vertices = case["vertices"]
    dag = RandomDAG("watts_strogatz", vertices, {"neighbors": max(2, vertices // 5 // 2 * 2), "p": 1.0}, seed=0)
    network = GraphRNN(dag, _INPUTS, case["cell"], skip="input", readout="sinks").to(setting.device)
    x = torch.randn(case["batch"], case["steps"], _INPUTS).to(setting.device)
    return Subject(network, x, "backward" in case["direction"])


def _step(mode: str, a: Tensor, r: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """New state of some units from the inputs of their gates, a and r (gates, B, N)."""
    if mode.startswith("rnn"):
        total = a[0] + r[0]
        return (total.tanh() if mode == "rnn_tanh" else total.relu(),)
    if mode == "gru":
        reset, update = (a[0] + r[0]).sigmoid(), (a[1] + r[1]).sigmoid()
        candidate = (a[2] + reset * r[2]).tanh()
        return (candidate + update * (state[0] - candidate),)
    i, f, o = ((a[k] + r[k]).sigmoid() for k in (0, 1, 3))
    c = f * state[1] + i * (a[2] + r[2]).tanh()
    return o * c.tanh(), c


def _start(network: GraphRNN, x: Tensor, size: int) -> tuple[Tensor, ...]:
    zeros = x.new_zeros(len(x), size)
    return (zeros, zeros) if network.cell == "lstm" else (zeros,)


def masked_each_step(subject: Subject) -> Call:
    """Return a loop over steps and layers."""
    network = subject.network
    dag = network.structure
    place = {v: k for k, v in enumerate(v for layer in dag.layers for v in layer)}
    columns = torch.tensor([place[v] for v in network.readout_vertices])

    def function(x: Tensor) -> Tensor:
        states = [_start(network, x, len(layer)) for layer in dag.layers]
        found = []
        for step in range(x.shape[1]):
            outputs: list[Tensor] = []
            for number, (part, vertices) in enumerate(zip(network.layers, dag.layers, strict=True)):
                sources = network.input_layers[number]
                inputs = torch.cat([outputs[source] for source in sources], 1) if sources else x[:, step]
                weight = part.weight_ih if part.mask_ih is None else part.weight_ih * part.mask_ih
                a = (
                    torch.addmm(part.bias_ih, inputs, weight.T)
                    .unflatten(1, (part.gates, len(vertices)))
                    .transpose(0, 1)
                )
                r = torch.addmm(part.bias_hh, states[number][0], part.weight_hh.T)
                r = r.unflatten(1, (part.gates, len(vertices))).transpose(0, 1)
                states[number] = _step(network.cell, a, r, states[number])
                outputs.append(states[number][0])
            found.append(torch.cat(outputs, 1)[:, columns])
        return torch.stack(found, 1)

    return subject.call(function)


def per_vertex(subject: Subject) -> Call | None:
    """Return a loop over steps and vertices."""
    network = subject.network
    dag = network.structure
    if subject.x.shape[0] > 32:
        return None  # it would take minutes
    layer = dag.layer.tolist()
    before = [[v for s in network.input_layers[k] for v in dag.layers[s]] for k in range(len(dag.layers))]
    edges = {(u, v) for u, v in dag.edge_index.T.tolist()}
    order = [v for vertices in dag.layers for v in vertices]
    wiring = []  # of each vertex: its part, its row in each gate, the sources and their columns
    for v in order:
        part, among = network.layers[layer[v]], dag.layers[layer[v]]
        rows = torch.arange(part.gates) * len(among) + among.index(v)
        sources = [u for u in before[layer[v]] if (u, v) in edges]
        columns = torch.tensor([before[layer[v]].index(u) for u in sources], dtype=torch.int64)
        wiring.append((v, part, among, rows, sources, columns))

    def function(x: Tensor) -> Tensor:
        states = {v: _start(network, x, 1) for v in order}
        weights = {
            v: (part.weight_ih[rows] if not sources else part.weight_ih[rows][:, columns], part.weight_hh[rows],
                part.bias_ih[rows], part.bias_hh[rows])
            for v, part, _, rows, sources, columns in wiring
        }  # fmt: skip
        found = []
        for step in range(x.shape[1]):
            now: dict[int, tuple[Tensor, ...]] = {}
            for v, _, among, _, sources, _ in wiring:
                w_ih, w_hh, b_ih, b_hh = weights[v]
                inputs = torch.cat([now[u][0] for u in sources], 1) if sources else x[:, step]
                past = torch.cat([states[u][0] for u in among], 1)
                a = torch.addmm(b_ih, inputs, w_ih.T).T[..., None]  # (gates, B, 1)
                r = torch.addmm(b_hh, past, w_hh.T).T[..., None]
                now[v] = _step(network.cell, a, r, states[v])
            states = now
            found.append(torch.cat([states[v][0] for v in network.readout_vertices], 1))
        return torch.stack(found, 1)

    return subject.call(function)


def twice_the_steps(rows: Sequence[Row]) -> list[Check]:
    """Return whether 200 steps take at most 2.3 times as long as 100, by direction."""
    found = []
    for direction in _WAYS:
        times = {row["steps"]: row["ms"]["layered"] for row in rows
                 if row["vertices"] == 64 and row["direction"] == direction}  # fmt: skip
        if len(times) == 2:
            ratio = times[200] / times[100]
            found.append(Check(f"200 steps over 100 steps, {direction}", ratio, 2.3, ratio <= 2.3))
    return found


speed = Speed(
    name="speed.graph_rnn",
    protocol=__doc__,
    cases=cases,
    prepare=prepare,
    contenders={
        "layered": lambda subject: subject.call(subject.network.outputs),
        "per vertex": per_vertex,
        "masked each step": masked_each_step,
    },
    equal=same_outputs(rtol=1e-3, atol=1e-4),
    rounds={"quick": 2, "default": 5, "full": 9},
    seconds={"quick": 0.001, "default": 0.2, "full": 0.4},
    claims=[
        AtLeast("layered/per vertex", 10, {"vertices": 64, "steps": 100}),
        AtLeast("layered/masked each step", 3, {"vertices": 50, "steps": 50}),
        twice_the_steps,
    ],
)
