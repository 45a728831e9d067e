"""The stores and loaders in a plain PyTorch loop: no Lightning, no configuration, PyG's own network."""

import torch
from sklearn.datasets import load_digits
from torch_geometric.nn import GIN, global_add_pool

from graphseq.data import BatchLoader, GraphStore, pixel_graphs

torch.set_num_threads(1)
torch.manual_seed(0)

source = load_digits()  # each image becomes the graph of its inked pixels
graphs = pixel_graphs(torch.as_tensor(source.images).float() / 16, torch.as_tensor(source.target))
train, test = (GraphStore.from_dataset(part) for part in (graphs[:1400], graphs[1400:]))  # .to("cuda") moves all of it
loader = BatchLoader(train, batch_size=64, shuffle=True, seed=0)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.nodes = GIN(3, 32, num_layers=3, norm="batch_norm")
        self.classes = torch.nn.Linear(32, 10)

    def forward(self, batch):
        x = torch.cat([batch.x, batch.pos], dim=1)  # (N, 3): brightness and place of each pixel
        return self.classes(global_add_pool(self.nodes(x, batch.edge_index), batch.batch))


network = Network()
optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
for epoch in range(10):
    loader.set_epoch(epoch)
    total = 0.0
    for batch in loader:  # real torch_geometric batches: views of one gather, so clone() before writing in place
        loss = torch.nn.functional.cross_entropy(network(batch), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * batch.num_graphs
    print(f"epoch {epoch}  loss {total / len(train):.3f}")

network.eval()
batch = test.take(torch.arange(len(test)))
accuracy = (network(batch).argmax(1) == batch.y).float().mean()
guessed = batch.y.bincount().max() / len(test)
print(f"accuracy on test graphs {accuracy:.2f}; baseline of the most frequent digit {guessed:.2f}")
