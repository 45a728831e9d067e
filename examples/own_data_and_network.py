"""Your own graphs, your own PyG network and your own task, in one short script."""

import functools

import lightning
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GraphConv, global_mean_pool
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy

from graphseq.core import batch_target, make, quiet_lightning
from graphseq.data import GraphDataModule
from graphseq.tasks import Step, Task

torch.set_num_threads(1)
quiet_lightning()


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
        score, label = self(batch).squeeze(1), batch_target(batch)
        loss = (1 - (2.0 * label - 1) * score).clamp(min=0).mean()
        return Step(loss, (score > 0).long(), label, len(label))

    def configure_metrics(self):
        return MetricCollection({"acc": BinaryAccuracy()})


if __name__ == "__main__":
    lightning.seed_everything(0, verbose=False)
    data = GraphDataModule([ring_or_path(position) for position in range(400)], split="stratified", batch_size=32)
    network = make(MyNetwork)  # so that a checkpoint can build the network again
    task = HingeClassification(network, optimizer=functools.partial(torch.optim.Adam, lr=1e-2))
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_epochs=30, accelerator="cpu", **quiet)
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    print(f"accuracy on test graphs {float(trainer.callback_metrics['test/acc']):.2f}; baseline of guessing 0.50")
