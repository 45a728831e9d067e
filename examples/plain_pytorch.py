"""The stores and loaders in a plain PyTorch loop: no Lightning, no configuration, PyG's own network."""

import torch
from sklearn.datasets import load_digits
from torch_geometric.nn import global_mean_pool
from torch_geometric.nn.models import PNA

from graphseq.data import BatchLoader, GraphStore, pixel_graphs

torch.set_num_threads(1)
torch.manual_seed(0)

source = load_digits()
graphs = pixel_graphs(torch.as_tensor(source.images[:600]).float() / 16, torch.as_tensor(source.target[:600]))
store = GraphStore.from_dataset(graphs)  # .to("cuda") and every batch is made there
loader = BatchLoader(store, batch_size=64, shuffle=True, seed=0)

degrees = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8])
network = PNA(1, 32, 3, 10, aggregators=["mean", "max"], scalers=["identity"], deg=degrees, edge_dim=2)
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
for epoch in range(3):
    loader.set_epoch(epoch)
    total = 0.0
    for batch in loader:  # real torch_geometric batches: views of one gather, so clone() before writing in place
        nodes = network(batch.x, batch.edge_index, edge_attr=batch.edge_attr)
        loss = torch.nn.functional.cross_entropy(global_mean_pool(nodes, batch.batch), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss) * batch.num_graphs
    print(f"epoch {epoch}  loss {total / len(store):.3f}  state {loader.state_dict()}")
