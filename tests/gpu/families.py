"""One small task of each family with its data, and a quiet Trainer on the device of the tests."""

import functools

import pytest

lightning = pytest.importorskip("lightning")

import torch
from torch_geometric.data import Data

from graphseq.data import (
    ImageDataModule,
    MotifDataModule,
    MotionClipsDataModule,
    NodeDataModule,
    NoisyImagesDataModule,
    PoissonDataModule,
    RandomCrop,
    StateTrackingDataModule,
    StoreDataModule,
    SyntheticEventsDataModule,
    SyntheticReberDataModule,
    TensorStore,
    WidebandDataModule,
)
from graphseq.models import (
    JODIE,
    MLP,
    TGN,
    CMuSeNet,
    ConvNet,
    G2GNet,
    GraphClassifier,
    MgNO,
    NodeClassifier,
    P3DResNet,
    ProjectedNetwork,
    ResNetEncoder,
    SelfieNetwork,
    SequenceClassifier,
    SequenceTagger,
)
from graphseq.nn import (
    AttentionPooling,
    BlockStack,
    ComplexFocalLoss,
    CosineEncoding,
    GatedLinearAttention,
    GraphRNN,
    HyperNetwork,
    MaskedRNN,
    NTXentLoss,
    ParaGRU,
    ProjectionHead,
    RelativeL2,
    SequenceBlock,
)
from graphseq.sparsity import RandomDAG
from graphseq.tasks import (
    Classification,
    NodeClassification,
    Regression,
    RepresentationLearning,
    Reweighted,
    Segmentation,
    SelfiePretraining,
    SequenceClassification,
    SequenceTagging,
    TemporalLinkPrediction,
    VideoClassification,
)

ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


class Table(StoreDataModule):
    """200 rows of five numbers and a linear target."""

    def read(self):
        x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
        part = torch.arange(200)
        splits = {"train": part[:120], "val": part[120:160], "test": part[160:]}
        return TensorStore(x, x @ torch.arange(5.0)), splits


def motifs(**options):
    return MotifDataModule(num_train=96, num_val=32, num_test=32, batch_size=16, **options)


def graphs(**options):
    network = GraphClassifier(8, 2, hidden_channels=16, num_layers=2, conv="gin", dropout=0.1)
    return Classification(network, num_outputs=2, optimizer=ADAM), motifs(**options)


def weighted(**options):
    network = GraphClassifier(8, 2, hidden_channels=16, num_layers=2, conv="gin")
    return Reweighted(network, num_outputs=2, start_epoch=0, optimizer=ADAM), motifs(**options)


def nodes(**options):
    generator = torch.Generator().manual_seed(0)
    graph = Data(
        x=torch.randn(120, 6, generator=generator),
        edge_index=torch.randint(120, (2, 500), generator=generator),
        y=torch.arange(120) % 3,
    )
    network = NodeClassifier(6, 3, hidden_channels=16)
    return NodeClassification(network, 3, optimizer=ADAM), NodeDataModule(graph, split="stratified", **options)


def images(**options):
    network = ConvNet(1, 10, hidden_channels=8, num_layers=2)
    data = ImageDataModule("digits", augmentation="crop", batch_size=64, **options)
    return Classification(network, num_outputs=10, optimizer=ADAM), data


def group_to_group(**options):
    network = G2GNet((1, 8, 8), 10, width=32, depth=2, groups=4)
    data = ImageDataModule("digits", batch_size=64, **options)
    return Classification(network, num_outputs=10, optimizer=ADAM), data


def strings(recurrent, **options):
    data = SyntheticReberDataModule(num_strings=400, batch_size=32, **options)
    network = SequenceClassifier(2, vocab_size=data.vocab_size, hidden_channels=16, recurrent=recurrent)
    return SequenceClassification(network, 2, optimizer=ADAM), data


def graph_rnn(**options):
    structure = RandomDAG("watts_strogatz", 12, {"neighbors": 4, "p": 1.0}, seed=0)
    return strings(GraphRNN(structure, 16, cell="gru"), **options)


def masked_rnn(**options):
    recurrent = MaskedRNN(16, 16, cell="lstm")
    recurrent.prune_(0.5)
    return strings(recurrent, **options)


def tagged(recurrent, **options):
    data = StateTrackingDataModule(200, max_length=32, batch_size=32, **options)
    network = SequenceTagger(2, vocab_size=data.vocab_size, hidden_channels=16, recurrent=recurrent)
    return SequenceTagging(network, 2, optimizer=ADAM), data


def para_gru(**options):
    # whether to fall back is asked of the device
    return tagged(ParaGRU(16, 16, mode="parallel", fallback=False), **options)


def linear_attention(**options):
    return tagged(BlockStack([SequenceBlock(GatedLinearAttention(16, num_heads=2))], 2), **options)


def table(**options):
    return Regression(MLP(5, 1, hidden_features=16), optimizer=ADAM), Table(32, **options)


def fields(**options):
    data = PoissonDataModule(num_train=40, num_val=8, num_test=8, resolution=15, batch_size=8, **options)
    network = MgNO(width=4, num_layers=2, levels=3, alignment="vertex")
    return Regression(network, loss=RelativeL2(), optimizer=ADAM), data


def clips(**options):
    data = MotionClipsDataModule(num_train=96, num_val=32, num_test=32, batch_size=16, **options)
    network = P3DResNet(1, 8, layers=(1, 1, 1, 1), base_width=4, temporal_pool=(False, True, True, False), dropout=0.0)
    return VideoClassification(network, 8, optimizer=ADAM), data


def patches(**options):
    pooling = AttentionPooling(16, num_layers=1, num_heads=2)
    network = SelfieNetwork(ResNetEncoder(1, channels=4), (1, 8, 8), patch_grid=2, pooling=pooling)
    return SelfiePretraining(network, mask_share=0.5, optimizer=ADAM), ImageDataModule(
        "digits", batch_size=64, **options
    )


def contrast(**options):
    network = ProjectedNetwork(ConvNet(1, 16, hidden_channels=8, num_layers=2), ProjectionHead(16))
    task = RepresentationLearning(network, loss=NTXentLoss(), views=[RandomCrop(1), RandomCrop(1)], optimizer=ADAM)
    return task, ImageDataModule("digits", batch_size=128, drop_last=True, **options)


def hypernetwork(**options):
    network = HyperNetwork(MLP(64, 64, hidden_features=8), 1, hidden_sizes=(8,), encoding=CosineEncoding())
    return Regression(network, optimizer=ADAM), NoisyImagesDataModule("digits", batch_size=64, **options)


def spectra(**options):
    sizes = {"num_train": 96, "num_val": 32, "num_test": 32, "num_bins": 64, "batch_size": 16}
    data = WidebandDataModule(**sizes, num_emitters=(1, 2), **options)
    network = CMuSeNet(64, channels=(2, 2, 4, 4), num_blocks=(1, 1, 1, 1), layout="1d", num_positions=4)
    return Segmentation(network, loss=ComplexFocalLoss(), optimizer=ADAM), data


def events(**options):
    return SyntheticEventsDataModule(600, num_edge_features=2, batch_size=50, **options)


def tgn(**options):
    data = events(**options)
    network = TGN(data.num_nodes, 2, memory_dim=8, time_dim=8, num_neighbors=4)
    return TemporalLinkPrediction(network, optimizer=ADAM), data


def jodie(**options):
    data = events(**options)
    network = JODIE(data.num_nodes, 2, data.time_statistics, memory_dim=8, time_dim=8)
    return TemporalLinkPrediction(network, optimizer=ADAM), data


SAMPLES = {
    "graphs": graphs,
    "weighted": weighted,
    "nodes": nodes,
    "images": images,
    "table": table,
    "group to group": group_to_group,
    "fields": fields,
    "clips": clips,
    "patches": patches,
    "contrast": contrast,
    "hypernetwork": hypernetwork,
    "spectra": spectra,
}
SEQUENCES = {
    "graph RNN": graph_rnn,
    "masked RNN": masked_rnn,
    "parallel GRU": para_gru,
    "linear attention": linear_attention,
}
STREAMS = {"TGN": tgn, "JODIE": jodie}
FAMILIES = {**SAMPLES, **SEQUENCES, **STREAMS}


def build(family, seed=0, **options):
    """Return the task and the data of a family; those of one seed start from the same network."""
    lightning.seed_everything(seed, verbose=False)
    return FAMILIES[family](**options)


def trainer(device, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    options = {"max_epochs": 1, "enable_model_summary": False, "log_every_n_steps": 1, **quiet, **options}
    return lightning.Trainer(accelerator=accelerator, devices=1, **options)


def tensors_of(batch):
    """Return the tensors of a batch of any family, by name or place."""
    if isinstance(batch, torch.Tensor):
        return {"0": batch}
    if isinstance(batch, tuple | list):
        return {f"{place}.{name}": x for place, part in enumerate(batch) for name, x in tensors_of(part).items()}
    if not isinstance(batch, dict):
        batch = batch.to_dict() if hasattr(batch, "to_dict") else vars(batch)
    return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
