import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.models import SequenceClassifier
from graphseq.nn import (
    ClassicalLSTM,
    ForgetBias,
    IdentityRecurrence,
    MaskedRNN,
    OrthogonalRecurrence,
    RecurrentStack,
)


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(3, 5, num_layers=2, bidirectional=True),
        nn.GRU(3, 5),
        nn.RNN(3, 5),
        ClassicalLSTM(3, 5, forget_gate=False, peepholes=True),
        MaskedRNN(3, 5, cell="lstm"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_orthogonal_for_each_gate(layer):
    OrthogonalRecurrence(gain=2.0, forget_bias=1.5)(layer)
    seen = 0
    for name, weight in layer.named_parameters():
        kind = name.rpartition(".")[2]
        if kind.startswith("weight_hh"):
            for gate in weight.split(5):
                assert torch.allclose(gate @ gate.T, 4 * torch.eye(5), atol=1e-5)
                seen += 1
        elif kind.startswith("bias"):
            expected = torch.zeros(len(weight))
            if len(weight) == 20 and kind.startswith("bias_ih"):  # in one of the two vectors, since they are added
                expected[5:10] = 1.5
            assert torch.equal(weight.detach(), expected)
    assert seen


def test_forget_bias_leaves_the_rest():
    layer = nn.LSTM(3, 5, num_layers=2)
    before = {name: weight.clone() for name, weight in layer.named_parameters()}
    ForgetBias(2.0)(layer)
    for name, weight in layer.named_parameters():
        changed = weight != before[name]
        assert set(changed.nonzero().flatten().tolist()) == (set(range(5, 10)) if "bias" in name else set())
    assert torch.allclose((layer.bias_ih_l1 + layer.bias_hh_l1)[5:10], torch.full((5,), 2.0))


def test_identity_keeps_a_state():
    layer = RecurrentStack(3, 5, cell="rnn_relu", initialization=IdentityRecurrence())
    state = torch.rand(1, 2, 5)
    y, _ = layer(torch.zeros(2, 7, 3), state)
    assert torch.allclose(y[:, -1], state[0])
    deviation = RecurrentStack(40, 50, cell="rnn", initialization=IdentityRecurrence(0.5, 0.2)).layers
    assert torch.equal(deviation.weight_hh_l0.detach(), 0.5 * torch.eye(50))
    assert float(deviation.weight_ih_l0.detach().std()) == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize("kind", [RecurrentStack, ClassicalLSTM])
def test_handed_to_a_layer_and_recorded(kind):
    layer = kind(3, 5, initialization=ForgetBias(3.0))
    weights = layer.layers if kind is RecurrentStack else layer
    layer.reset_parameters()
    assert torch.allclose((weights.bias_ih_l0 + weights.bias_hh_l0)[5:10], torch.full((5,), 3.0))
    model = SequenceClassifier(2, in_channels=3, recurrent=layer)
    spec = model._record["init_args"]["recurrent"]["init_args"]["initialization"]
    assert spec == {"class_path": "graphseq.nn.ForgetBias", "init_args": {"value": 3.0}}


def test_refused():
    with pytest.raises(ValueError, match="GRU has no forget gate"):
        ForgetBias()(nn.GRU(3, 5))
    with pytest.raises(ValueError, match="ClassicalLSTM has no forget gate"):
        ClassicalLSTM(3, 5, forget_gate=False, initialization=ForgetBias())
    with pytest.raises(ValueError, match="LSTM has gates"):
        IdentityRecurrence()(nn.LSTM(3, 5))
    with pytest.raises(ValueError, match="Linear has gates or no recurrence"):
        IdentityRecurrence()(make(nn.Linear, 3, 5))
    with pytest.raises(ValueError, match="gain is 0"):
        OrthogonalRecurrence(gain=0)
    with pytest.raises(ValueError, match="input_deviation is 0"):
        IdentityRecurrence(input_deviation=0)
