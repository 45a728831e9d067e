"""Which layer of a transformer carries the answer: activation, attribution and relevance patching, and a picture."""

import torch
from torch import nn

from graphseq.analysis import LogitDifference, PatchingExperiment, block_sites, draw_patching_scores
from graphseq.core import make
from graphseq.data import indirect_objects, swap_subjects
from graphseq.models import SequenceTagger
from graphseq.nn import BlockStack, CausalAttention, FeedForward, LearnedPositions, NoPositions, PreNorm, SequenceBlock

torch.set_num_threads(1)
torch.manual_seed(0)
WIDTH, LENGTH = 48, 8

# "Mary . John . . . John ->": two names among fillers, one of them again, and the answer is the other
block = SequenceBlock(
    CausalAttention(WIDTH, positions=NoPositions()),
    FeedForward(WIDTH, 2 * WIDTH),
    PreNorm(WIDTH, make(nn.LayerNorm, WIDTH)),
)
layers = BlockStack([block], repeats=3, norm=make(nn.LayerNorm, WIDTH), positions=LearnedPositions(WIDTH, LENGTH))
network = SequenceTagger(8, vocab_size=8 + 4 + 1, hidden_channels=WIDTH, recurrent=layers)
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
for _ in range(300):
    x, y = indirect_objects(128, num_names=8, num_fillers=4, length=LENGTH)
    loss = nn.functional.cross_entropy(network(x)[:, -1], y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

clean, correct = indirect_objects(64, num_names=8, num_fillers=4, length=LENGTH, places=(1, 4))
corrupted, wrong = swap_subjects(clean, correct)  # the other name occurs again, so the other answer is right
accuracy = (network(clean)[:, -1].argmax(1) == correct).float().mean()
print(f"accuracy {accuracy:.2f}; baseline of guessing between the two names 0.50")

question = PatchingExperiment(network, block_sites("recurrent"), LogitDifference(correct, wrong))
scores = {
    "activation": question.activation_patching(clean, corrupted),  # the truth: a run for each layer and position
    "attribution": question.attribution_patching(clean, corrupted),  # the gradient: three passes for all of them
    "relevance": question.relevance_patching(clean, corrupted),  # at the same cost, by the rules of relevance
}
for name in ("attribution", "relevance"):
    found = scores[name].pearson(scores["activation"])
    print(f"{name:12}", "  ".join(f"{site} {value:.3f}" for site, value in found.items()))

carried = scores["activation"].values["residual"].argmax(1).tolist()
print("step that carries the answer before each block:", carried)
draw_patching_scores(scores, ["·", "name", "·", "·", "name", "·", "again", "?"]).savefig("patched.png", dpi=120)
print("patched.png has the effects by layer and position")
