"""Your own graphs, your own PyG network and your own task, in one short script."""

import lightning
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GraphConv, global_mean_pool

from graphseq.core import batch_target
from graphseq.data import GraphDataModule
from graphseq.tasks import Step, Task

torch.set_num_threads(1)


def ring_or_path(position):
    """A cycle (class 1) or a path (class 0) of 5 to 12 nodes: degrees tell them apart."""
    nodes = 5 + position % 8
    source = torch.arange(nodes - 1 + position % 2)
    target = (source + 1) % nodes
    edge_index = torch.stack([torch.cat([source, target]), torch.cat([target, source])])
    return Data(x=torch.ones(nodes, 1), edge_index=edge_index, y=torch.tensor([position % 2]))


class MyNetwork(torch.nn.Module):
    """Any network: it is given the fields of the batch that its forward names."""

    def __init__(self):
        super().__init__()
        self.first, self.second = GraphConv(1, 16), GraphConv(16, 16)
        self.head = torch.nn.Linear(16, 1)

    def forward(self, x, edge_index, batch):
        h = self.second(self.first(x, edge_index).relu(), edge_index).relu()
        return self.head(global_mean_pool(h, batch))


class HingeClassification(Task):
    """A training procedure of one's own: the hinge loss between a score and a label of -1 or 1."""

    def step(self, batch, stage):
        score = self(batch).squeeze(1)
        sign = 2.0 * batch_target(batch) - 1
        return Step((1 - sign * score).clamp(min=0).mean(), score, sign, len(sign))


if __name__ == "__main__":
    lightning.seed_everything(0, verbose=False)
    data = GraphDataModule([ring_or_path(position) for position in range(400)], split="stratified", batch_size=32)
    task = HingeClassification(MyNetwork())
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_epochs=30, accelerator="cpu", **quiet)
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    print(f"hinge loss on test graphs {float(trainer.callback_metrics['test/loss']):.3f}")
