"""Fields: solvers against solutions in closed form, draws that are the same on every grid, and data modules."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Generator

from graphseq.core import DataError
from graphseq.data import (
    DarcyDataModule,
    FieldFileDataModule,
    HelmholtzDataModule,
    PoissonDataModule,
    VorticityDataModule,
    evolve_vorticity,
    gaussian_random_fields,
    solve_darcy,
    solve_helmholtz,
)

FEW = {"num_train": 4, "num_val": 1, "num_test": 2}


def points(rows, columns):
    y, x = (torch.linspace(0, 1, size, dtype=torch.float64) for size in (rows, columns))
    return torch.meshgrid(y, x, indexing="ij")


def darcy_error(size):
    y, x = points(size, 2 * size - 1)
    a, pi = torch.exp(x + y / 2), math.pi
    u = torch.sin(pi * x) * torch.sin(2 * pi * y)
    slopes = pi * torch.cos(pi * x) * torch.sin(2 * pi * y) + pi * torch.sin(pi * x) * torch.cos(2 * pi * y)
    return float((solve_darcy(a[None], a[None] * (5 * pi**2 * u - slopes)[None]) - u).abs().max())


def helmholtz_error(size):
    y, x = points(2 * size - 1, size)
    k, u = 4 + x * y, torch.cos(math.pi * x) * y**2
    forcing = math.pi**2 * u - 2 * torch.cos(math.pi * x) - k**2 * u
    return float((solve_helmholtz(k[None], 2 * torch.cos(math.pi * x[:1]), forcing[None]) - u).abs().max())


@pytest.mark.parametrize("error", [darcy_error, helmholtz_error])
def test_solutions_in_closed_form_are_met_at_second_order(error):
    errors = [error(size) for size in (9, 17, 33)]
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(2, abs=0.15)
    assert errors[-1] < 0.02


def test_flux_is_continuous_where_the_coefficient_jumps():
    """Layers side by side: along them the harmonic mean decides, and the solution bends at the jump between points."""
    a = torch.ones(1, 5, 10, dtype=torch.float64)
    a[:, :, 5:] = 100
    u = solve_darcy(a)[0]
    matrix, right = np.zeros((3 * 8, 3 * 8)), np.ones(3 * 8)
    for i in range(3):
        for j in range(8):
            for di, dj, h in [(1, 0, 1 / 4), (-1, 0, 1 / 4), (0, 1, 1 / 9), (0, -1, 1 / 9)]:
                here, there = float(a[0, i + 1, j + 1]), float(a[0, i + 1 + di, j + 1 + dj])
                face = 2 * here * there / (here + there) / h**2
                matrix[8 * i + j, 8 * i + j] += face
                if 0 <= i + di < 3 and 0 <= j + dj < 8:
                    matrix[8 * i + j, 8 * (i + di) + j + dj] -= face
    assert np.allclose(u[1:-1, 1:-1].numpy().ravel(), np.linalg.solve(matrix, right))
    assert not u[0].any()
    assert not u[:, -1].any()


def test_one_coefficient_for_all_samples_is_factorised_once():
    f = torch.randn(3, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(solve_darcy(torch.ones(1, 9, 9), f), solve_darcy(torch.ones(3, 9, 9), f))


def test_flow_stays_where_a_source_keeps_it_and_the_time_step_is_of_fourth_order():
    """Streams sin x + sin 2 y, whose vorticity a source keeps as it is; its transport does not vanish."""
    z, c, viscosity = torch.arange(16, dtype=torch.float64) / 16 * 2 * math.pi, 2 * math.pi, 0.01
    y, x = torch.meshgrid(z, z, indexing="ij")
    w = torch.sin(x) + 4 * torch.sin(2 * y)  # minus the Laplacian of the stream, over c^2
    v_x, v_y = 2 * torch.cos(2 * y) / c, -torch.cos(x) / c
    transport = c * (v_x * torch.cos(x) + v_y * 8 * torch.cos(2 * y))
    forcing = transport + viscosity * c**2 * (torch.sin(x) + 16 * torch.sin(2 * y))
    after = [
        evolve_vorticity(w[None], viscosity=viscosity, duration=0.5, num_steps=steps, forcing=forcing)
        for steps in (10, 20, 40)
    ]
    errors = [float((field - w).abs().max()) for field in after]
    assert errors[-1] < 1e-8
    assert [math.log2(a / b) for a, b in itertools.pairwise(errors)] == pytest.approx([4, 4], abs=0.2)


def test_random_fields_have_variance_one_and_are_the_same_on_every_grid():
    for edge, fine in (("neumann", 17), ("periodic", 16)):

        def draw(size, edge=edge):
            return gaussian_random_fields(400, size, edge=edge, num_modes=6, generator=Generator().manual_seed(1))

        torch.testing.assert_close(draw(fine)[:, ::2, ::2], draw((fine + 1) // 2))
        weight = torch.ones(fine, dtype=torch.float64)
        if edge == "neumann":
            weight[[0, -1]] = 0.5
        weight = torch.outer(weight, weight) / weight.sum() ** 2
        assert float((weight * draw(fine).square()).sum((1, 2)).mean()) == pytest.approx(1, abs=0.1)
        assert float((weight * draw(fine)).sum((1, 2)).abs().max()) < 1e-12  # without the constant mode


@pytest.mark.parametrize(
    "made",
    [
        lambda size, seed: DarcyDataModule("smooth", **FEW, resolution=size, seed=seed),
        lambda size, seed: PoissonDataModule(**FEW, resolution=size, seed=seed),
        lambda size, seed: HelmholtzDataModule(**FEW, resolution=size + 2, wavenumber=3.0, seed=seed),
        lambda size, seed: VorticityDataModule(**FEW, resolution=size + 1, duration=0.1, seed=seed),
    ],
    ids=["darcy", "poisson", "helmholtz", "vorticity"],
)
def test_samples_are_those_of_the_seed_on_every_grid(made):
    """Every second point of the finer grid is a point of the coarser one, where solutions agree up to its error."""
    coarse, fine, other = made(15, 0), made(31, 0), made(15, 1)
    (x, y), (x_fine, y_fine), (x_other, _) = (data.store.take(torch.arange(7)) for data in (coarse, fine, other))
    first = 0 if isinstance(coarse, HelmholtzDataModule | VorticityDataModule) else 1
    torch.testing.assert_close(x_fine[..., first::2, first::2], x, rtol=1e-4, atol=1e-5)
    assert float((y_fine[..., first::2, first::2] - y).norm() / y.norm()) < 0.08
    assert not torch.allclose(x, x_other)
    assert coarse.split_sizes() == {"train": 4, "val": 1, "test": 2}
    assert (coarse.num_features, coarse.num_outputs) == (1, 1)


def test_statistics_are_those_of_the_training_split():
    data = DarcyDataModule(**FEW, resolution=7)
    x, y = data.store.take(data.splits["train"])
    found = data.field_statistics
    assert found["input_mean"] == [pytest.approx(float(x.mean()))]
    assert found["input_std"] == [pytest.approx(float(x.std(correction=0)))]
    assert found["output_scale"] == [pytest.approx(float(y.square().mean().sqrt()))]
    whole, _ = data.store.take(torch.arange(7))
    assert found["input_mean"] != [pytest.approx(float(whole.mean()))]


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_fields_of_a_file(tmp_path, suffix):
    path = tmp_path / f"fields{suffix}"
    x, y = torch.randn(10, 6, 5), torch.randn(10, 2, 6, 5)
    y[0, 0, 0, 0] = torch.nan
    torch.save({"x": x, "y": y}, path) if suffix == ".pt" else np.savez(path, x=x.numpy(), y=y.numpy())
    data = FieldFileDataModule(path)
    assert (data.num_features, data.num_outputs) == (1, 2)
    assert torch.equal(data.store.take(torch.arange(10))[0], x[:, None])
    assert all(math.isfinite(scale) for scale in data.field_statistics["output_scale"])


def test_bad_files(tmp_path):
    def written(**arrays):
        np.savez(tmp_path / "fields.npz", **arrays)
        return FieldFileDataModule(tmp_path / "fields.npz")

    good = np.zeros((10, 4, 4))
    for arrays, said in [
        ({"x": good}, "no array 'y'"),
        ({"x": good, "y": good[:9]}, r"y \(9, 1, 4, 4\)"),
        ({"x": good + np.nan, "y": good}, "x of .* is not finite"),
        ({"x": good.astype(int), "y": good}, "torch.int64"),
    ]:
        with pytest.raises(DataError, match=said):
            written(**arrays).load()
    (tmp_path / "fields.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        FieldFileDataModule(tmp_path / "fields.npz").load()
    with pytest.raises(DataError, match="there is no file"):
        FieldFileDataModule(tmp_path / "absent.pt").load()
    with pytest.raises(ValueError, match=r"fields\.csv"):
        FieldFileDataModule("fields.csv")


def test_bad_equations():
    a = torch.ones(2, 5, 5)
    a[1, 2, 2] = -3
    with pytest.raises(DataError, match="-3 at its smallest in sample 1"):
        solve_darcy(a)
    with pytest.raises(DataError, match="coefficient is not finite"):
        solve_darcy(a * torch.nan)
    with pytest.raises(DataError, match=r"forcing \(3, 5, 5\)"):
        solve_darcy(torch.ones(2, 5, 5), torch.ones(3, 5, 5))
    with pytest.raises(DataError, match="no single solution"):
        solve_helmholtz(torch.zeros(1, 5, 5), torch.ones(1, 5))
    with pytest.raises(DataError, match="flux has shape"):
        solve_helmholtz(torch.ones(1, 5, 5), torch.ones(1, 4))
    with pytest.raises(DataError, match="not finite after 2 steps"):
        evolve_vorticity(
            1e150 * gaussian_random_fields(1, 8, edge="periodic"), viscosity=0.0, duration=1.0, num_steps=2
        )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DarcyDataModule("striped"), "kind is 'striped'"),
        (lambda: DarcyDataModule(num_train=0), "num_train is 0"),
        (lambda: PoissonDataModule(exponent=1), "exponent is 1"),
        (lambda: HelmholtzDataModule(wavenumber=0), "wavenumber is 0"),
        (lambda: VorticityDataModule(viscosity=-1), "viscosity is -1"),
        (lambda: gaussian_random_fields(1, 8, edge="dirichlet"), "edge is 'dirichlet'"),
        (lambda: gaussian_random_fields(1, 8, shift=0), "shift 0"),
        (lambda: evolve_vorticity(torch.zeros(1, 8, 8), viscosity=0, duration=1, num_steps=0), "num_steps 0"),
    ],
)
def test_bad_arguments(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_numbers_that_no_solver_takes():
    one, w = torch.ones(1, 5, 5), torch.zeros(1, 8, 8)
    for call, said in [
        (lambda: solve_darcy(one.numpy()), "coefficient is ndarray"),
        (lambda: solve_darcy(one, math.nan), "forcing is nan"),
        (lambda: solve_helmholtz(one, torch.ones(1, 5) * 1j), "flux is torch.complex64"),
        (lambda: evolve_vorticity(w * math.nan, viscosity=0.1, duration=1, num_steps=1), "vorticity is not finite"),
        (lambda: evolve_vorticity(w[:0], viscosity=0.1, duration=1, num_steps=1), "at least one"),
        (lambda: evolve_vorticity(w, viscosity=0.1, duration=1, num_steps=1, forcing=w[0, 1:]), r"shape \(7, 8\)"),
    ]:
        with pytest.raises(DataError, match=said):
            call()
    with pytest.raises(ValueError, match=r"resolution is 15\.5"):
        DarcyDataModule(resolution=15.5)


@pytest.mark.parametrize(("x", "message"), [(np.array(["a"]), "no numbers"), (np.full((9, 4, 4), 1e300), "float32")])
def test_files_with_what_is_no_float32(x, message, tmp_path):
    np.savez(tmp_path / "f.npz", x=x, y=np.ones((9, 4, 4)))
    with pytest.raises(DataError, match=f"x of .*{message}"):
        FieldFileDataModule(tmp_path / "f.npz").load()
