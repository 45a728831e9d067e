"""Superpixel graphs against k-means in plain loops, nearest nodes by sorting, and noise where it belongs."""

import math

import pytest
import torch

from graphseq.data import SuperpixelDataModule, find_superpixels
from graphseq.data.graphs.superpixels import _neighbors


def loops(image, rows, columns, compactness, iterations):
    """K-means of one image, pixel by pixel, in float64."""
    height, width = len(image), len(image[0])
    near = compactness * math.sqrt(rows * columns / (height * width))
    pixels = [(image[r][c], near * r, near * c) for r in range(height) for c in range(width)]
    starts = [
        (int((i + 0.5) * height / rows), int((j + 0.5) * width / columns)) for i in range(rows) for j in range(columns)
    ]
    centres = [pixels[r * width + c] for r, c in starts]
    for _ in range(iterations):
        members = [[] for _ in centres]
        for pixel in pixels:
            distances = [sum((a - b) ** 2 for a, b in zip(pixel, centre, strict=True)) for centre in centres]
            nearest = next(k for k, d in enumerate(distances) if d <= min(distances) + 1e-9)  # a tie goes to the first
            members[nearest].append(pixel)
        centres = [
            tuple(sum(values) / len(own) for values in zip(*own, strict=True)) if own else centre
            for own, centre in zip(members, centres, strict=True)
        ]
    found = [
        [c[0], c[1] / near / (height - 1), c[2] / near / (width - 1)]
        for c, own in zip(centres, members, strict=True)
        if own
    ]
    return found + [[math.nan] * 3] * (len(centres) - len(found))


@pytest.mark.parametrize(("shape", "number", "grid"), [((6, 9), 6, (2, 3)), ((8, 8), 10, (3, 3)), ((5, 4), 20, (5, 4))])
@pytest.mark.parametrize("compactness", [0.05, 0.6])
def test_superpixels_equal_the_loops(shape, number, grid, compactness):
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    images[1, :2] = 0.0
    found = find_superpixels(images, number, compactness=compactness, iterations=4)
    expected = [loops(image.tolist(), *grid, compactness, 4) for image in images]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5, equal_nan=True)


def test_ties_go_to_the_first_centre_and_node():
    # a grey image: every pixel between two centres is as far from both, and nothing but the rule decides
    flat = torch.full((1, 6, 6), 0.3)
    noisy = flat + 1e-13 * torch.randn(50, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = find_superpixels(flat.double(), 9, compactness=0.3, iterations=3)
    found = find_superpixels(noisy, 9, compactness=0.3, iterations=3)
    torch.testing.assert_close(found, expected.expand_as(found), rtol=0, atol=1e-6)
    # nodes on a grid are as near on all sides: rounding of their places does not choose among them
    grid = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))[None] / 7
    edges, counts = _neighbors(grid, 3)
    for seed in range(5):
        rounding = 1e-8 * torch.randn(grid.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        again, number = _neighbors(grid.double() + rounding, 3)
        assert torch.equal(counts, number)
        assert {*map(tuple, edges.T.tolist())} == {*map(tuple, again.T.tolist())}
    middle = sorted(source for source, target in edges.T.tolist() if target == 12)
    assert middle == [7, 11, 13]  # of 7, 11, 13 and 17


def test_superpixels_without_a_pixel_stand_last():
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(100, 6, 6, generator=draws) * (torch.rand(100, 6, 6, generator=draws) > 0.9)
    found = find_superpixels(images, 9, compactness=0.01, iterations=8)
    gaps = torch.isnan(found[:, :, 0])
    assert gaps.any()
    assert torch.equal(gaps, torch.isnan(found).any(2))
    assert torch.equal(gaps, gaps.byte().sort(dim=1).values.bool())
    _, counts = _neighbors(found[:, :, 1:], 2)
    nodes = (~gaps).sum(1)
    assert torch.equal(counts, nodes * (nodes - 1).clamp(max=2))


def test_edges_come_from_the_nearest_nodes():
    places = torch.rand(4, 7, 2, generator=torch.Generator().manual_seed(0))
    places[1, 5:] = torch.nan
    places[3, 2:] = torch.nan
    edges, counts = _neighbors(places, 3)
    start = 0
    for graph, count in zip(places, counts.tolist(), strict=True):
        rows = [row for row in graph.tolist() if not math.isnan(row[0])]
        expected = set()
        for node, at in enumerate(rows):
            others = sorted((math.dist(at, row), other) for other, row in enumerate(rows) if other != node)
            expected |= {(other, node) for _, other in others[:3]}
        assert {tuple(edge) for edge in edges[:, start : start + count].T.tolist()} == expected
        assert count == len(expected)
        start += count
    assert start == edges.size(1)


def data(**options):
    sizes = {"num_superpixels": 20, "num_train": 40, "num_val": 10, "num_test": 30}
    return SuperpixelDataModule("digits", **{**sizes, **options})


@pytest.mark.parametrize(("shift", "channels"), [("noise", 1), ("color", 3), ("none", 1)])
def test_noise_is_on_the_intensities_of_test_nodes_alone(shift, channels):
    module = data(shift=shift, strength=0.4)
    assert module.num_features == channels + 2
    assert module.split_sizes() == {"train": 40, "val": 10, "test": 30}
    noisy, clean = (module.graphs.take(index) for index in (module.splits["test"], module.clean_test))
    assert torch.equal(noisy.edge_index, clean.edge_index)
    assert torch.equal(noisy.y, clean.y)
    assert torch.equal(noisy.x[:, channels:], noisy.pos)
    assert torch.equal(noisy.x[:, channels:], clean.x[:, channels:])
    change = (noisy.x - clean.x)[:, :channels]
    plain = data(shift="none")
    for name in ("train", "val"):
        expected = plain.graphs.take(plain.splits[name]).x
        found = module.graphs.take(module.splits[name]).x
        assert torch.equal(found[:, channels:], expected[:, 1:])
        for channel in range(channels):
            assert torch.equal(found[:, channel], expected[:, 0])
    env = module.graphs.field("env")
    assert env[module.splits["test"]].unique().tolist() == [int(shift != "none")]
    assert int(env.sum()) == 30 * (shift != "none")
    if shift == "none":
        assert not change.any()
    else:
        assert float(change.std()) == pytest.approx(0.4, rel=0.1)
        assert float(change.mean()) == pytest.approx(0.0, abs=0.06)
    if shift == "color":
        assert float(torch.corrcoef(change.T)[0, 1].abs()) < 0.15  # each channel has noise of its own


def test_seeds_and_the_cache(own_cache):
    first, again, other = (data(seed=seed).graphs for seed in (1, 1, 2))
    assert len(list(own_cache.rglob("superpixels-digits-*.pt"))) == 2
    assert torch.equal(first.field("x"), again.field("x"))
    assert first.field("y").tolist() != other.field("y").tolist()


def test_the_test_graphs_are_of_the_published_test_images(mirror):
    module = SuperpixelDataModule("MNIST", num_train=20, num_val=0, num_test=50)
    assert module.split_sizes() == {"train": 20, "val": 0, "test": 50}
    assert module.graphs.num_nodes.tolist() == [72] * 120
    assert (module.num_features, module.num_outputs) == (3, 10)
    assert int(module.graphs.offsets("edge_index").diff()[0]) == 8 * 72
    x = module.graphs.take(module.clean_test).x
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shift": "blur"}, "shift"),
        ({"strength": -1.0}, "strength"),
        ({"num_superpixels": 1}, "num_superpixels"),
        ({"num_neighbors": 0}, "num_neighbors"),
        ({"num_train": 0}, "num_train"),
        ({"compactness": 0.0}, "compactness"),
        ({"iterations": 0}, "iterations"),
    ],
)
def test_refuses(options, named):
    with pytest.raises(ValueError, match=named):
        data(**options)
    with pytest.raises(ValueError, match="name is 'CIFAR10'"):
        SuperpixelDataModule("CIFAR10")
    with pytest.raises(ValueError, match="images have 4 pixels"):
        find_superpixels(torch.zeros(1, 2, 2), 5)
