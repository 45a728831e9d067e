import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import graphseq
from graphseq.core import make
from graphseq.models import G2GNet, PatchMLP
from graphseq.nn import ERLinear, PatchEncoder
from graphseq.tasks import Classification
from tests.reliability.runs import trainer

SMALL = {"in_shape": (1, 8, 8), "out_features": 3, "groups": 4, "width": 32, "channels": 4}


def test_patches_stand_one_after_the_other():
    encoder, channels = PatchEncoder((2, 8, 12), 4, 3), PatchEncoder((2, 8, 12), 4, 3, order="channel")
    channels.load_state_dict(encoder.state_dict())
    x = torch.randn(5, 2, 8, 12)
    expected = torch.stack([
        nn.functional.conv2d(x[:, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3], encoder.convolution.weight,
                             encoder.convolution.bias).relu().flatten(1)
        for row in range(4) for column in range(4)
    ], 1)  # fmt: skip
    torch.testing.assert_close(encoder(x), expected.flatten(1))
    torch.testing.assert_close(channels(x), expected.transpose(1, 2).flatten(1))


@pytest.mark.parametrize(("grouping", "depth", "reads"), [("index", 3, 16), ("mixer", 1, 16), ("mixer", 2, 64)])
def test_receptive_field_without_weights_between_groups(grouping, depth, reads):
    torch.manual_seed(0)
    model = G2GNet(**SMALL, depth=depth, p_inter=0.0, grouping=grouping, backend="packed").double()
    features = torch.rand(64, dtype=torch.float64)

    def hidden(x):
        for block in model.hidden:
            x = block[0](x)  # linear, so that no unit is switched off
        return x

    jacobian = torch.autograd.functional.jacobian(hidden, features)
    assert (jacobian.abs() > 1e-12).sum(1).tolist() == [reads] * 32


@pytest.mark.parametrize("backend", ["packed", "masked"])
def test_is_rebuilt_from_its_checkpoint(tmp_path, backend):
    model = G2GNet(**SMALL, grouping="random", backend=backend)
    run = trainer(max_epochs=1)
    batches = DataLoader(TensorDataset(torch.randn(8, 1, 8, 8), torch.randint(3, (8,))), 4)
    run.fit(Classification(model, 3), batches)
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = graphseq.load(tmp_path / "a.ckpt").model
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(x), model(x))


def test_edges_of_another_draw_are_rebuilt_from_a_checkpoint():
    first, second = (G2GNet(**SMALL, granularity="edge", backend="blockdiag+csr") for _ in range(2))
    assert any(a[0].values.shape != b[0].values.shape for a, b in zip(first.hidden, second.hidden, strict=True))
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(second(x), first(x))


def test_layers_of_the_caller_and_their_sizes():
    model = PatchMLP((1, 8, 8), 3, [ERLinear(64, 16, 0.5), make(nn.Linear, 16, 8)], channels=4)
    assert model.encode(torch.randn(2, 1, 8, 8)).shape == (2, 8)
    before = [parameter.clone() for parameter in model.parameters()]
    model.reset_parameters()
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert int(model.hidden[0][0].mask.sum()) == 512
    for call, match in [
        (lambda: PatchMLP((1, 8, 8), 3, [make(nn.Linear, 63, 16)], channels=4), r"layers\[0\] takes 63"),
        (lambda: PatchMLP((1, 8, 8), 3, [], channels=4), "layers is empty"),
        (lambda: PatchMLP((1, 9, 8), 3, [make(nn.Linear, 64, 16)], channels=4), "patch_grid is 4"),
        (lambda: PatchEncoder((8, 8), 2), "in_shape"),
        (lambda: PatchEncoder((1, 8, 8), order="row"), "order is 'row'"),
        (lambda: G2GNet(**{**SMALL, "groups": 3}), "groups is 3"),
        (lambda: G2GNet(**SMALL, depth=0), "depth is 0"),
        (lambda: G2GNet(**SMALL, grouping="interleaved"), "grouping is 'interleaved'"),
        (lambda: model(torch.randn(2, 1, 9, 8)), r"\(2, 1, 9, 8\)"),
    ]:
        with pytest.raises(ValueError, match=match):
            call()
