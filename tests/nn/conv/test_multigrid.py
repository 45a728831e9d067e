"""Cycles of convolutions: equal to a plain cycle, linear, and multigrid itself with the stencils of an equation."""

import itertools

import pytest
import torch
from torch import nn

from graphseq.data import PoissonDataModule
from graphseq.nn import MgConv2d, RelativeL2

KINDS = list(itertools.product(("dirichlet", "neumann", "periodic"), ("vertex", "cell")))
SIZES = {"dirichlet": 5, "neumann": 5, "periodic": 6}


def layer(boundary, alignment, **options):
    torch.manual_seed(0)
    return MgConv2d(2, 3, levels=2, boundary=boundary, alignment=alignment, **options).double()


def place(i, n, boundary, alignment):
    """Place within a grid of n points of the value at i, which may lie one beyond its end; None for zero."""
    if 0 <= i < n:
        return i
    if boundary == "periodic":
        return i % n
    if boundary == "dirichlet":
        return None
    return {("vertex", True): 1, ("vertex", False): n - 2, ("cell", True): 0, ("cell", False): n - 1}[alignment, i < 0]


def stencil(x, weight, rows, columns, kind, step=1, first=0):
    """Sum of the nine neighbours of the points first, first + step, ..., point by point."""
    found = []
    for i, j in itertools.product(range(rows), range(columns)):
        total = x.new_zeros(len(x), len(weight))
        for dy, dx in itertools.product(range(3), range(3)):
            y = place(first + step * i + dy - 1, x.shape[2], *kind)
            z = place(first + step * j + dx - 1, x.shape[3], *kind)
            if y is not None and z is not None:
                total = total + x[:, :, y, z] @ weight[:, :, dy, dx].T
        found.append(total)
    return torch.stack(found, -1).unflatten(-1, (rows, columns))


def halved(x, weight, kind):
    inside = kind == ("dirichlet", "vertex")
    sizes = [(n - 1) // 2 if inside else n // 2 if kind[0] == "periodic" else (n + 1) // 2 for n in x.shape[2:]]
    return stencil(x, weight, *sizes, kind, step=2, first=int(inside))


def spread(x, weight, shape, kind):
    """Interpolation: each coarse value, those beyond the edge too, is added to the fine points around it."""
    fine = [[x.new_zeros(len(x), weight.shape[1]) for _ in range(shape[3])] for _ in range(shape[2])]
    start = 0 if kind == ("dirichlet", "vertex") else -1
    for i, j in itertools.product(range(-1, x.shape[2] + 1), range(-1, x.shape[3] + 1)):
        y, z = place(i, x.shape[2], *kind), place(j, x.shape[3], *kind)
        if y is None or z is None:
            continue
        for dy, dx in itertools.product(range(weight.shape[2]), range(weight.shape[3])):
            row, column = 2 * i + start + dy, 2 * j + start + dx
            if 0 <= row < shape[2] and 0 <= column < shape[3]:
                fine[row][column] = fine[row][column] + x[:, :, y, z] @ weight[:, :, dy, dx]
    return torch.stack([torch.stack(row, -1) for row in fine], -2)


def cycle(module, f, kind):
    """Two grids: one step and two, one afterwards, residuals restricted if the layer does so."""

    def full(x, conv):
        return stencil(x, conv.weight, *x.shape[2:], kind)

    u = full(f, module.pre[0][0].smoother)
    rest = f - full(u, module.residual[0]) if module.residual_restriction else f
    below, v = halved(rest, module.restrict[0].weight, kind), halved(u, module.project[0].weight, kind)
    for step in module.pre[1]:
        v = v + full(below - full(v, step.operator), step.smoother)
    u = u + spread(v, module.prolong[0].weight, u.shape, kind)
    for step in module.post[0]:
        u = u + full(f - full(u, step.operator), step.smoother)
    return u


@pytest.mark.parametrize(("boundary", "alignment"), KINDS)
def test_equals_the_plain_cycle(boundary, alignment):
    residual = alignment == "vertex"
    module = layer(boundary, alignment, post=[1], residual_restriction=residual)
    size = SIZES[boundary]
    f = torch.randn(1, 2, size, size - 2, dtype=torch.float64, requires_grad=True)
    u, expected = module(f), cycle(module, f, (boundary, alignment))
    torch.testing.assert_close(u, expected)
    leaves, incoming = [f, *module.parameters()], torch.randn_like(u)
    for ours, theirs in zip(*(torch.autograd.grad(out, leaves, incoming) for out in (u, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("boundary", "alignment"), KINDS)
def test_is_linear(boundary, alignment):
    module = layer(boundary, alignment, post=[2], residual_restriction=True)
    f, g = torch.randn(2, 1, 2, SIZES[boundary], SIZES[boundary], dtype=torch.float64)
    torch.testing.assert_close(module(2 * f - 3 * g), 2 * module(f) - 3 * module(g), rtol=0, atol=1e-10)
    assert not module(torch.zeros_like(f)).any()


@torch.no_grad()
def multigrid(levels, spacing):
    """The layer with minus the Laplacian on five points, damped Jacobi, full weighting and bilinear interpolation."""
    module = MgConv2d(1, 1, levels, [2] * levels, [2] * (levels - 1), alignment="vertex", residual_restriction=True)
    laplacian = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    middle = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    hat = torch.outer(torch.tensor([0.5, 1, 0.5]), torch.tensor([0.5, 1, 0.5]))
    for level in range(levels):
        h = spacing * 2**level
        for step in [*module.pre[level], *(module.post[level] if level < levels - 1 else [])]:
            step.smoother.weight.copy_(0.8 * h**2 / 4 * middle)
            if step.operator is not None:
                step.operator.weight.copy_(laplacian / h**2)
        if level < levels - 1:
            module.residual[level].weight.copy_(laplacian / h**2)
            module.restrict[level].weight.copy_(hat / 4)
            module.project[level].weight.zero_()
            module.prolong[level].weight.copy_(hat)
    return module.double(), (laplacian / spacing**2).double().view(1, 1, 3, 3)


def test_is_multigrid_with_the_stencils_of_an_equation():
    """Each cycle leaves a share of the error that does not grow with the grid."""
    factors = []
    for size in (31, 63, 127):
        module, stencil = multigrid(size.bit_length(), 1 / (size + 1))
        assert module.grid_sizes(size)[-1] == 1
        exact = torch.randn(1, 1, size, size, dtype=torch.float64)
        f, u, errors = nn.functional.conv2d(exact, stencil, padding=1), torch.zeros_like(exact), []
        for _ in range(8):
            u = u + module(f - nn.functional.conv2d(u, stencil, padding=1)).detach()
            errors.append(float((u - exact).norm()))
        factors.append((errors[-1] / errors[2]) ** (1 / 5))
    assert max(factors) < 0.3, factors
    assert max(factors) - min(factors) < 0.03, factors


@pytest.mark.parametrize("alignment", ["vertex", "cell"])
def test_periodic_cycles_move_with_their_input(alignment):
    f = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    moved = f.roll((2, -2), (2, 3))  # two grids: by two points
    module = layer("periodic", alignment)
    torch.testing.assert_close(module(moved), module(f).roll((2, -2), (2, 3)))
    assert not torch.allclose(module(f.roll(1, 2)), module(f).roll(1, 2))
    if alignment == "cell":
        module = layer("dirichlet", alignment)
        assert not torch.allclose(module(moved), module(f).roll((2, -2), (2, 3)))


@pytest.mark.parametrize("size", [64, 65, 101, 129])
def test_cells_take_any_size(size):
    module = MgConv2d(1, 2, levels=5, boundary="neumann")
    u = module(torch.randn(1, 1, size, 20))
    assert u.shape == (1, 2, size, 20)
    u.square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in module.parameters())


def test_parameters_grow_by_the_same_number_for_each_level():
    counts = [sum(p.numel() for p in MgConv2d(2, 3, levels).parameters()) for levels in range(1, 5)]
    grown = {after - before for before, after in itertools.pairwise(counts)}
    assert grown == {2 * 2 * 3 * 9 + 2 * 2 * 9 + 3 * 3 * (9 + 16)}


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [
        (("dirichlet", "vertex"), 32, "grid 1 has 32"),
        (("dirichlet", "vertex"), 27, "grid 3 has 6"),
        (("neumann", "vertex"), 31, "grid 2 has 16"),
        (("periodic", "cell"), 36, "grid 3 has 9"),
        (("dirichlet", "cell"), 4, "grid 3 has 1"),
    ],
)
def test_sizes_that_do_not_coarsen(kind, size, said):
    module = MgConv2d(1, 1, levels=4, boundary=kind[0], alignment=kind[1])
    with pytest.raises(ValueError, match=said):
        module(torch.zeros(1, 1, size, size))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"levels": 0}, "levels is 0"),
        ({"boundary": "robin"}, "boundary is 'robin'"),
        ({"alignment": "face"}, "alignment is 'face'"),
        ({"levels": 2, "pre": [1]}, r"pre is \[1\]"),
        ({"levels": 2, "pre": [0, 1]}, r"pre is \[0, 1\]"),
        ({"levels": 2, "post": [1, 1]}, r"post is \[1, 1\]"),
    ],
)
def test_bad_arguments(options, said):
    with pytest.raises(ValueError, match=said):
        MgConv2d(1, 1, **options)
    with pytest.raises(ValueError, match="have shape"):
        MgConv2d(1, 1)(torch.zeros(1, 2, 32, 32))


@pytest.mark.slow
def test_one_cycle_learns_to_solve_poisson():
    """A linear layer, 200 samples: relative error below 2 % on others."""
    torch.manual_seed(0)
    data = PoissonDataModule(num_train=200, num_val=1, num_test=50, resolution=31)
    scale = data.field_statistics["output_scale"][0]
    train, test = (data.store.take(data.splits[split]) for split in ("train", "test"))
    module = nn.Sequential(MgConv2d(1, 6, 5, [2] * 5, [2] * 4, alignment="vertex"), nn.Conv2d(6, 1, 1, bias=False))
    optimizer = torch.optim.Adam(module.parameters(), lr=6e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, 600)
    loss = RelativeL2()
    for step in range(600):
        rows = torch.arange(20 * step, 20 * step + 20) % 200
        optimizer.zero_grad()
        loss(module(train[0][rows]) * scale, train[1][rows]).backward()
        optimizer.step()
        rates.step()
    with torch.no_grad():
        assert (error := float(loss(module(test[0]) * scale, test[1]))) < 0.02, error


def test_grids_that_are_too_small():
    for options, least in [({"boundary": "neumann", "alignment": "vertex"}, 2), ({}, 1)]:
        module = MgConv2d(1, 1, levels=1, **options)
        assert module(torch.zeros(1, 1, least, least)).shape == (1, 1, least, least)
        with pytest.raises(ValueError, match=f"there are {least - 1} points"):
            module(torch.zeros(1, 1, least - 1, 4))
    with pytest.raises(ValueError, match="pre is 1; give a list"):
        MgConv2d(1, 1, pre=1)
