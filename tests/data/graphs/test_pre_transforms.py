"""Named sets of graphs take a transform of single graphs; what is cached for one transform is not read for another."""

import inspect

import jsonargparse
import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Data

import graphseq.data
from graphseq.core import DataError
from graphseq.data import (
    ActorDataModule,
    DigitGraphsDataModule,
    GraphDataModule,
    GraphSetDataModule,
    MoleculeDataModule,
    MotifDataModule,
    NodeDataModule,
    PlanetoidDataModule,
    SuperpixelDataModule,
    TrianglesDataModule,
    TUDataModule,
)
from tests.data.graphs.test_graph_modules import write_set


def toy(folder, **options):
    if not (folder / "TUDataset").exists():
        write_set(folder)
    return TUDataModule("TOY", split="random", fractions=[1.0, 0.0, 0.0], **options)


def molecules(folder, **options):
    pytest.importorskip("rdkit")
    path = folder / "table.csv"
    path.write_text("smiles,t\nCCO,0\nCCN,1\nc1ccccc1,0\nCC1CC1,1\nC1CC1,0\nCO,1\n")
    return MoleculeDataModule(path=path, target_columns=["t"], split="random", fractions=[0.5, 0.3, 0.2], **options)


SETS = {
    "digits": lambda folder, **options: DigitGraphsDataModule(**options),
    "motifs": lambda folder, **options: MotifDataModule(num_train=12, num_val=3, num_test=3, **options),
    "triangles": lambda folder, **options: TrianglesDataModule(num_train=20, num_val=10, num_test=10, **options),
    "superpixels": lambda folder, **options: SuperpixelDataModule(
        "digits", num_superpixels=20, num_train=20, num_val=5, num_test=5, **options
    ),
    "tu": toy,
    "molecules": molecules,
}


@pytest.mark.parametrize("name", SETS)
def test_named_sets_are_transformed_and_cached_by_transform(name, tmp_path, own_cache, no_network, monkeypatch):
    monkeypatch.setenv("GRAPHSEQ_MIRROR", str(tmp_path))

    def made(transform):
        data = SETS[name](tmp_path, pre_transform=transform)
        return data.graphs.field("x"), data.num_features, next(data.batches("train"))

    plain, width, _ = made(None)
    one, wider, batch = made(T.Constant(1.0))
    two, _, _ = made(T.Compose([T.Constant(2.0)]))
    again, _, _ = made(T.Constant(1.0))
    assert wider == width + 1 == batch.x.size(1)
    assert torch.equal(one[:, :-1], plain.view(len(plain), -1))
    assert one[:, -1].eq(1).all()
    assert two[:, -1].eq(2).all()
    assert torch.equal(one, again)
    assert torch.equal(made(None)[0], plain)
    assert len(list(own_cache.rglob("*-transformed-*.pt"))) == 2


def test_every_data_module_of_graphs_takes_a_transform_of_one_graph():
    kinds = [getattr(graphseq.data, name) for name in graphseq.data.__all__]
    kinds = [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, (GraphSetDataModule, NodeDataModule))]
    assert len(kinds) >= 10
    for kind in kinds:
        parameters = inspect.signature(kind.__init__).parameters
        options = parameters["options"].annotation.__args__[0] if "options" in parameters else None
        assert "pre_transform" in (parameters if options is None else options.__annotations__), kind


CONSTANT = {"class_path": "torch_geometric.transforms.Constant", "init_args": {"value": 2.0}}


def centred(graph: Data) -> Data:
    return T.Center()(graph)


@pytest.mark.parametrize("kind", [DigitGraphsDataModule, TrianglesDataModule, PlanetoidDataModule, ActorDataModule])
def test_configs_name_transforms_with_their_arguments(kind):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "data")

    def built(transform):
        name = {"name": "Cora"} if kind is PlanetoidDataModule else {}
        given = parser.parse_object({"data": {"pre_transform": transform, **name}})
        return parser.instantiate(given).data.pre_transform

    one = built(CONSTANT)
    assert isinstance(one, T.Constant)
    assert one.value == 2.0
    both = {"class_path": "torch_geometric.transforms.Compose", "init_args": {"transforms": [CONSTANT, CONSTANT]}}
    assert [type(part) for part in built(both).transforms] == [T.Constant, T.Constant]
    assert built(f"{__name__}.centred") is centred


def test_a_failed_transform_is_no_transform_at_the_next_call_either():
    graphs = [graphseq.data.pixel_graphs(torch.ones(1, 2, 2), torch.tensor([n % 2]))[0] for n in range(10)]
    data = GraphDataModule(graphs, pre_transform=lambda graph: None)
    for _ in range(2):
        with pytest.raises(DataError, match="pre_transform .*NoneType.*graph 0"):
            data.load()
