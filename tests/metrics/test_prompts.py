"""Coverage and magnitude of prompts, over batches and processes."""

import pytest
import torch

from graphseq.metrics import PromptCoverage, PromptMagnitude, prompt_coverage, prompt_magnitude


def graphs():
    prompt = torch.tensor([[1.0, -3.0], [0.0, 0.0], [0.0, 0.0], [0.5, 0.0], [0.0, 0.0], [2.0, 2.0]])
    return prompt, torch.tensor([0, 4, 4, 6])


def test_by_hand():
    prompt, ptr = graphs()
    assert float(prompt_coverage(prompt, ptr)) == 0.5  # 2 of 4, none of none, 1 of 2
    assert float(prompt_magnitude(prompt, ptr)) == pytest.approx((2 + 0.25 + 2) / 3)
    assert float(prompt_magnitude(torch.zeros(2, 3), torch.tensor([0, 2]))) == 0


@pytest.mark.parametrize(
    ("metric", "function"), [(PromptCoverage, prompt_coverage), (PromptMagnitude, prompt_magnitude)]
)
def test_batches_make_the_whole(metric, function):
    prompt, ptr = graphs()
    parts = metric()
    parts.update(prompt[:4], torch.tensor([0, 4]))
    parts.update(prompt[4:], torch.tensor([0, 0, 2]))
    assert float(parts.compute()) == pytest.approx(float(function(prompt, ptr)))
    with pytest.raises(ValueError, match=r"prompt is \(6,\)"):
        function(prompt[:, 0], ptr)
    with pytest.raises(ValueError, match="ptr runs from 0 to 4 over 6 rows"):
        function(prompt, ptr[:2])


def test_uniform_choice_covers_as_many_nodes_as_its_formula_says():
    """1 - (1 - 1/n)^n: what a policy covers that has learned nothing."""
    n, count = 20, 4000
    chosen = torch.randint(n, (count, n), generator=torch.Generator().manual_seed(2))
    prompt = torch.zeros(count, n).scatter_(1, chosen, 1.0).view(-1, 1)
    found = float(prompt_coverage(prompt, torch.arange(count + 1) * n))
    assert found == pytest.approx(1 - (1 - 1 / n) ** n, abs=0.004)
