"""Learned prompts against loops with their gradients, and the random control."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from graphseq.models import GraphEncoder
from graphseq.nn import GPF, SUPT, EmbeddedGraphs, GPFPlus, PromptTokens, RandomPrompt
from tests.reference import prompts as reference

SIZES = [3, 1, 6]


def graphs():
    generator = torch.Generator().manual_seed(0)
    parts = []
    for nodes in SIZES:
        edges = torch.randint(0, nodes, (2, 2 * nodes), generator=generator)
        parts.append(Data(x=torch.randn(nodes, 4, generator=generator, dtype=torch.float64), edge_index=edges))
    return EmbeddedGraphs.from_batch(GraphEncoder(4, 8), Batch.from_data_list(parts))


def expected(module, packed):
    if isinstance(module, GPF):
        return torch.stack([module.prompt[0]] * len(packed.h))
    if isinstance(module, GPFPlus):
        return reference.gpf_plus(packed.h, module.prompt, module.score.weight, module.score.bias)
    if isinstance(module, SUPT):
        return reference.supt(packed.h, packed.edge_index.T.tolist(), module.prompt, module.weight, module.bias)
    return reference.tokens(packed.h, module.tokens, module.threshold)


@pytest.mark.parametrize(
    "module", [GPF(4), GPFPlus(4, 3), SUPT(4, 3), PromptTokens(4, 3, threshold=0.5)], ids=lambda m: type(m).__name__
)
def test_prompts_and_gradients_equal_loops(module):
    module, packed = module.double(), graphs()
    torch.manual_seed(0)
    module.reset_parameters()
    with torch.no_grad():
        for parameter in module.parameters():  # so that biases are not 0
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    found, wanted = module(packed), expected(module, packed)
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-14)
    weight = torch.randn_like(found)
    parameters = list(module.parameters())
    ours = torch.autograd.grad((found * weight).sum(), parameters)
    theirs = torch.autograd.grad((wanted * weight).sum(), parameters)
    assert all(torch.allclose(one, other, rtol=1e-10, atol=1e-13) for one, other in zip(ours, theirs, strict=True))


def test_random_prompts_have_the_given_size_and_coverage():
    module, packed = RandomPrompt(4, magnitude=0.3, share=0.5, seed=2).eval(), graphs()
    prompt = module(packed)
    assert torch.equal(prompt, module(packed))
    covered = (prompt != 0).any(1)
    assert [int(part.sum()) for part in covered.split(SIZES)] == [2, 1, 3]
    assert not torch.equal(module.train()(packed), module(packed))
    many = torch.cat([module(packed)[module(packed).any(1)].flatten() for _ in range(300)])
    values = many[many != 0].abs()
    assert abs(float(values.mean()) - 0.3) < 4 * float(values.std()) / len(values) ** 0.5
    assert not list(module.parameters())


def test_refusals():
    with pytest.raises(ValueError, match="channels=0"):
        GPF(0)
    with pytest.raises(ValueError, match="num_prompts=0"):
        GPFPlus(4, 0)
    with pytest.raises(ValueError, match="num_prompts=0"):
        SUPT(4, 0)
    with pytest.raises(ValueError, match="threshold=1"):
        PromptTokens(4, threshold=1.0)
    with pytest.raises(ValueError, match="share=2"):
        RandomPrompt(4, share=2.0)
