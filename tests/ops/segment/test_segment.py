import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import OptionalDependencyError
from graphseq.ops import (
    segment_argmax,
    segment_backend,
    segment_max,
    segment_mean,
    segment_min,
    segment_softmax,
    segment_sum,
)
from graphseq.ops.segment import native
from graphseq.ops.segment.index import _SHORT
from tests.reference import segment as reference

FUNCTIONS = {
    "sum": segment_sum,
    "mean": segment_mean,
    "max": segment_max,
    "min": segment_min,
    "softmax": segment_softmax,
    "argmax": segment_argmax,
}
SMOOTH = ["sum", "mean", "max", "min", "softmax"]
# one column, a narrow and a wide matrix (each takes another native path), and higher ranks
TRAILING = [(), (1,), (3,), (17,), (2, 3), (4, 1, 5)]


def torch_scatter_usable():
    try:
        with segment_backend("torch_scatter") as name:
            return name == "torch_scatter"
    except OptionalDependencyError:
        return False


NEEDS_TORCH_SCATTER = pytest.mark.skipif(not torch_scatter_usable(), reason="torch-scatter is not installed")


@pytest.fixture(params=["native", pytest.param("torch_scatter", marks=NEEDS_TORCH_SCATTER)])
def backend(request):
    with segment_backend(request.param):
        yield request.param


def make(trailing, *, num_values=40, num_segments=9, seed=0, dtype=torch.float64, ties=False):
    """Rows, a sorted index with empty segments at the start, in the middle and at the end, and its ptr."""
    generator = torch.Generator().manual_seed(seed)
    used = torch.tensor([g for g in range(num_segments) if g not in (0, num_segments // 2, num_segments - 1)])
    index = used[torch.randint(len(used), (num_values,), generator=generator)].sort().values
    values = torch.randn((num_values, *trailing), generator=generator, dtype=torch.float64)
    if ties:
        values = (2 * values).round()
    count = torch.bincount(index, minlength=num_segments)
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)])
    return values.to(dtype), index, ptr


def layouts(values, index, ptr, seed=1):
    """The same rows by ptr, by their sorted index and shuffled, each with the row numbers in the first order."""
    shuffle = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))
    num_segments = len(ptr) - 1
    yield values, {"ptr": ptr}, torch.arange(len(index))
    yield values, {"index": index, "num_segments": num_segments}, torch.arange(len(index))
    yield values[shuffle], {"index": index[shuffle], "num_segments": num_segments}, shuffle


def rows_of(values):
    return values.reshape(len(values), -1).tolist()


def index_of(segments, num_values):
    if "ptr" not in segments:
        return segments["index"].tolist()
    bounds = segments["ptr"].tolist()
    return [g for g in range(len(bounds) - 1) for _ in range(bounds[g], bounds[g + 1])]


def expected(operation, values, segments):
    num_segments = segments.get("num_segments", len(segments.get("ptr", [0])) - 1)
    width = math.prod(values.shape[1:])
    output = reference.reduce(operation, rows_of(values), index_of(segments, len(values)), num_segments, width)
    rows = len(values) if operation == "softmax" else num_segments
    dtype = torch.int64 if operation == "argmax" else torch.float64
    return torch.tensor(output, dtype=dtype).reshape(rows, *values.shape[1:])


class TestAgainstReference:
    @pytest.mark.parametrize("trailing", TRAILING)
    @pytest.mark.parametrize("operation", FUNCTIONS)
    def test_output_and_gradient(self, operation, trailing, backend):
        for values, segments, _ in layouts(*make(trailing)):
            leaf = values.clone().requires_grad_()
            output = FUNCTIONS[operation](leaf, **segments)
            torch.testing.assert_close(output.detach(), expected(operation, values, segments), rtol=1e-12, atol=1e-12)
            if operation == "argmax":
                assert not output.requires_grad
                continue
            weights = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
            (gradient,) = torch.autograd.grad(output, leaf, weights)
            wanted = reference.gradient(operation, rows_of(values), index_of(segments, len(values)), rows_of(weights))
            torch.testing.assert_close(
                gradient, torch.tensor(wanted, dtype=torch.float64).view(values.shape), rtol=1e-11, atol=1e-12
            )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("trailing", [(), (3,), (17,)])
    @pytest.mark.parametrize("operation", SMOOTH)
    def test_precision(self, operation, trailing, dtype, backend):
        bound = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype]
        for values, segments, _ in layouts(*make(trailing, dtype=dtype, num_values=300)):
            leaf = values.clone().requires_grad_()
            output = FUNCTIONS[operation](leaf, **segments)
            assert output.dtype == dtype
            torch.testing.assert_close(
                output.double(), expected(operation, values.double(), segments), rtol=bound, atol=bound
            )
            weights = torch.linspace(-1, 1, output.numel()).view(output.shape).to(dtype)
            (gradient,) = torch.autograd.grad(output, leaf, weights)
            assert gradient.dtype == dtype
            if operation in ("max", "min") and (backend == "torch_scatter" or dtype != torch.float32):
                continue  # half precision ties
            wanted = reference.gradient(
                operation, rows_of(values.double()), index_of(segments, 300), rows_of(weights.double())
            )
            wanted = torch.tensor(wanted, dtype=torch.float64).view(values.shape)
            torch.testing.assert_close(gradient.double(), wanted, rtol=2 * bound, atol=2 * bound)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
    @pytest.mark.parametrize("operation", ["sum", "max", "min", "argmax"])
    def test_integers(self, operation, dtype, backend):
        values, index, ptr = make((3,))
        values = (3 * values.abs()).to(dtype)
        for rows, segments, _ in layouts(values, index, ptr):
            output = FUNCTIONS[operation](rows, **segments)
            assert output.dtype == (torch.int64 if operation == "argmax" else dtype)
            assert torch.equal(output.double(), expected(operation, rows.double(), segments).double())

    @pytest.mark.parametrize("trailing", [(), (3,), (17,)])
    @pytest.mark.parametrize("operation", ["max", "min", "argmax"])
    def test_ties(self, operation, trailing):
        for values, segments, _ in layouts(*make(trailing, ties=True)):
            leaf = values.clone().requires_grad_()
            output = FUNCTIONS[operation](leaf, **segments)
            assert torch.equal(output.double(), expected(operation, values, segments).double())
            if operation == "argmax":
                continue
            weights = torch.randn(output.shape, dtype=torch.float64)
            (gradient,) = torch.autograd.grad(output, leaf, weights)
            wanted = reference.gradient(operation, rows_of(values), index_of(segments, len(values)), rows_of(weights))
            torch.testing.assert_close(gradient, torch.tensor(wanted, dtype=torch.float64).view(values.shape))
            # the gradient is linear in the weights; its derivative must be the transpose of that map
            direction, cotangent = torch.randn_like(weights), torch.randn_like(values)
            (moved,) = torch.autograd.grad(FUNCTIONS[operation](leaf, **segments), leaf, direction)
            weights.requires_grad_()
            (gradient,) = torch.autograd.grad(FUNCTIONS[operation](leaf, **segments), leaf, weights, create_graph=True)
            (transposed,) = torch.autograd.grad(gradient, weights, cotangent)
            torch.testing.assert_close((transposed * direction).sum(), (cotangent * moved).sum())

    @pytest.mark.parametrize("block", [1, 40, 100])
    def test_gradient_of_large_extrema_in_blocks(self, block, monkeypatch):
        values, index, _ = make((17,), ties=True)
        leaf, weights = values.clone().requires_grad_(), torch.randn(9, 17, dtype=torch.float64)
        monkeypatch.setattr(native, "_BLOCK", block)
        (gradient,) = torch.autograd.grad(segment_max(leaf, index, num_segments=9), leaf, weights)
        wanted = reference.gradient("max", rows_of(values), index.tolist(), rows_of(weights))
        torch.testing.assert_close(gradient, torch.tensor(wanted, dtype=torch.float64))

    @NEEDS_TORCH_SCATTER
    @pytest.mark.parametrize("trailing", [(), (3,), (17,)])
    def test_ties_of_torch_scatter_go_to_one_entry(self, trailing):
        for values, segments, _ in layouts(*make(trailing, ties=True)):
            leaf = values.clone().requires_grad_()
            with segment_backend("torch_scatter"):
                output = segment_max(leaf, **segments)
                winners = segment_argmax(values, **segments)
            weights = torch.randn(output.shape, dtype=torch.float64)
            (gradient,) = torch.autograd.grad(output, leaf, weights)
            assert torch.equal(winners, expected("argmax", values, segments))
            full = winners < len(values)
            assert torch.equal(gradient.gather(0, winners.clamp(max=len(values) - 1))[full], weights[full])
            torch.testing.assert_close(gradient.sum(0), (weights * full).sum(0))

    @pytest.mark.parametrize("width", [1, 3, 17])
    def test_nan_and_infinity(self, width):
        inf, nan = math.inf, math.nan
        column = torch.tensor([-inf, -inf, inf, 1.0, 2.0, nan, nan, 3.0, -inf, 5.0])
        values = column.view(-1, 1).repeat(1, width)
        index = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2, 4, 4])
        ptr = torch.tensor([0, 2, 4, 8, 8, 10])
        for rows, segments, _ in layouts(values, index, ptr):
            for operation in ("max", "min", "argmax"):
                output = FUNCTIONS[operation](rows, **segments)
                torch.testing.assert_close(
                    output.double(), expected(operation, rows, segments).double(), equal_nan=True, rtol=0, atol=0
                )


class TestDerivatives:
    @pytest.mark.parametrize("trailing", [(), (2,), (17,)])
    @pytest.mark.parametrize("operation", SMOOTH)
    def test_gradcheck_twice(self, operation, trailing, backend):
        for values, segments, _ in layouts(*make(trailing, num_values=9, num_segments=6)):
            leaf = values.clone().requires_grad_()

            def call(x, segments=segments):
                return FUNCTIONS[operation](x, **segments)

            assert torch.autograd.gradcheck(call, (leaf,), fast_mode=True)
            assert torch.autograd.gradgradcheck(call, (leaf,), fast_mode=True)

    @pytest.mark.parametrize("operation", SMOOTH)
    def test_third_derivative_of_a_square(self, operation):
        values, _, ptr = make((3,), num_values=9, num_segments=6)

        def call(x):
            (first,) = torch.autograd.grad((FUNCTIONS[operation](x, ptr=ptr) ** 3).sum(), x, create_graph=True)
            return first

        assert torch.autograd.gradgradcheck(call, (values.requires_grad_(),), fast_mode=True)

    def test_values_changed_after_a_sum(self):
        values = torch.ones(4, 1, requires_grad=True)
        hidden = values * 1
        total = segment_sum(hidden, ptr=torch.tensor([0, 1, 4]))
        hidden.add_(1)  # the gradient of a sum needs no values
        assert torch.equal(torch.autograd.grad(total.sum(), values)[0], torch.ones(4, 1))


class TestLayouts:
    @pytest.mark.parametrize("trailing", [(), (3,), (17,)])
    @pytest.mark.parametrize("operation", FUNCTIONS)
    def test_sorted_shuffled_and_ptr_agree(self, operation, trailing, backend):
        outputs, gradients = [], []
        for values, segments, order in layouts(*make(trailing)):
            leaf = values.clone().requires_grad_()
            output = FUNCTIONS[operation](leaf, **segments)
            if operation == "argmax":
                output = torch.cat([order, torch.tensor([len(order)])])[output]
            elif operation == "softmax":
                output = torch.zeros_like(output).index_copy(0, order, output)
            outputs.append(output.detach())
            if operation != "argmax":
                (gradient,) = torch.autograd.grad(output.square().sum(), leaf)
                gradients.append(torch.zeros_like(gradient).index_copy(0, order, gradient))
        for other in outputs[1:]:
            torch.testing.assert_close(other, outputs[0])
        for other in gradients[1:]:
            torch.testing.assert_close(other, gradients[0])

    @settings(max_examples=40, deadline=None)
    @given(
        index=st.lists(st.integers(0, 6), max_size=25),
        width=st.sampled_from([1, 2, 16]),
        seed=st.integers(0, 2**31),
        extra=st.integers(0, 3),
    )
    @pytest.mark.parametrize("operation", SMOOTH)
    def test_permutation(self, operation, index, width, seed, extra):
        """Rows in another order give the same sums, and gradients in that order, whatever is tied or empty."""
        generator = torch.Generator().manual_seed(seed)
        index = torch.tensor(index, dtype=torch.int64)
        values = torch.randint(-3, 4, (len(index), width), generator=generator).double().requires_grad_()
        shuffle = torch.randperm(len(index), generator=generator)
        num_segments = 7 + extra
        call = FUNCTIONS[operation]
        here = call(values, index, num_segments=num_segments)
        there = call(values[shuffle], index[shuffle], num_segments=num_segments)
        weights = torch.randn(here.shape, generator=generator, dtype=torch.float64)
        if operation == "softmax":
            there_weights = weights[shuffle]
            torch.testing.assert_close(there, here[shuffle])
        else:
            there_weights = weights
            torch.testing.assert_close(there, here)
        torch.testing.assert_close(
            torch.autograd.grad(there, values, there_weights)[0], torch.autograd.grad(here, values, weights)[0]
        )

    @pytest.mark.parametrize("operation", FUNCTIONS)
    def test_rows_that_are_not_contiguous(self, operation, backend):
        values, index, ptr = make((17,))
        strided = torch.stack([values, -values], dim=-1)[..., 0].t().contiguous().t()
        assert not strided.is_contiguous()
        for segments in ({"ptr": ptr}, {"index": index, "num_segments": 9}):
            assert torch.equal(FUNCTIONS[operation](strided, **segments), FUNCTIONS[operation](values, **segments))

    def test_number_of_segments(self):
        assert segment_sum(torch.ones(3), torch.tensor([0, 4, 1])).shape == (5,)
        assert segment_sum(torch.ones(3), torch.tensor([0, 4, 1]), num_segments=8).shape == (8,)
        assert segment_sum(torch.ones(3), ptr=torch.tensor([0, 3, 3]), num_segments=2).shape == (2,)


class TestEmpty:
    @pytest.mark.parametrize("operation", FUNCTIONS)
    def test_empty_segments(self, operation, backend):
        """Sums, means and extrema of nothing are 0, also beside extrema below 0; argmax tells that it is nothing."""
        values, index, ptr = make((3,))
        for rows, segments, _ in layouts(-values.abs() - 1, index, ptr):
            output = FUNCTIONS[operation](rows, **segments)
            if operation == "softmax":
                continue
            empty = output[[0, 4, 8]]
            assert torch.equal(empty, torch.full_like(empty, len(values) if operation == "argmax" else 0))
            full = output[1:4]
            assert bool((full < len(values) if operation == "argmax" else full < 0).all())

    @pytest.mark.parametrize("trailing", TRAILING)
    @pytest.mark.parametrize("operation", FUNCTIONS)
    def test_no_rows(self, operation, trailing, backend):
        for segments in (
            {"ptr": torch.zeros(4, dtype=torch.int64)},
            {"index": torch.zeros(0, dtype=torch.int64), "num_segments": 3},
        ):
            values = torch.zeros((0, *trailing), requires_grad=True)
            output = FUNCTIONS[operation](values, **segments)
            assert output.shape == ((0 if operation == "softmax" else 3), *trailing)
            assert not output.any()
            if operation != "argmax":
                (gradient,) = torch.autograd.grad(output.sum(), values)
                assert gradient.shape == values.shape

    @pytest.mark.parametrize("operation", FUNCTIONS)
    def test_no_segments_or_no_columns(self, operation, backend):
        nothing = torch.zeros(0, dtype=torch.int64)
        assert FUNCTIONS[operation](torch.zeros(0, 3), nothing).shape == (0, 3)
        assert FUNCTIONS[operation](torch.zeros(0, 3), ptr=torch.zeros(1, dtype=torch.int64)).shape == (0, 3)
        for segments in ({"ptr": torch.tensor([0, 1, 2])}, {"index": torch.tensor([0, 1])}):
            values = torch.zeros(2, 0, requires_grad=True)
            output = FUNCTIONS[operation](values, **segments)
            assert output.shape == (2, 0)
            if operation != "argmax":
                assert torch.autograd.grad(output.sum(), values)[0].shape == (2, 0)


class TestPrecision:
    def test_half_sums_are_accumulated_in_float32(self, backend):
        for dtype, total in ((torch.bfloat16, 3008.0), (torch.float16, 3000.0)):
            for width in (1, 3, 17):
                ones = torch.ones(3000, width, dtype=dtype)
                by_index = segment_sum(ones, torch.zeros(3000, dtype=torch.int64))
                by_ptr = segment_sum(ones, ptr=torch.tensor([0, 3000]))
                assert by_index.unique().tolist() == by_ptr.unique().tolist() == [total]

    def test_half_mean_does_not_overflow(self, backend):
        values = torch.full((3000, 2), 100.0, dtype=torch.float16)
        assert segment_mean(values, ptr=torch.tensor([0, 3000])).tolist() == [[100.0, 100.0]]
        assert segment_mean(values, torch.zeros(3000, dtype=torch.int64)).tolist() == [[100.0, 100.0]]

    def test_softmax_of_large_and_masked_entries(self, backend):
        for width in (1, 17):
            column = torch.tensor([1e4, 1e4 - 1, -1e30, -math.inf, 0.0, -math.inf, -math.inf])
            index = torch.tensor([0, 0, 0, 1, 1, 2, 2])
            values = column.view(-1, 1).repeat(1, width).requires_grad_()
            for segments in ({"index": index, "num_segments": 4}, {"ptr": torch.tensor([0, 3, 5, 7, 7])}):
                output = segment_softmax(values, **segments)
                pair = torch.softmax(torch.tensor([1.0, 0.0]), 0).tolist()
                wanted = torch.tensor([*pair, 0, 0, 1, 0, 0])
                torch.testing.assert_close(output[:, 0].detach(), wanted)
                (gradient,) = torch.autograd.grad(output, values, torch.arange(7.0).view(-1, 1).expand_as(output))
                assert bool(gradient.isfinite().all())

    def test_softmax_under_autocast_is_float32(self, backend):
        values, index, _ = make((3,), dtype=torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = segment_softmax(values, index)
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, segment_softmax(values.float(), index), rtol=0, atol=0)
        assert segment_softmax(values, index).dtype == torch.bfloat16


class TestErrors:
    @pytest.mark.parametrize("operation", FUNCTIONS)
    @pytest.mark.parametrize(
        ("index", "message"),
        [
            ([0, 5, 1], "index holds 5.*0..4"),
            ([0, -1, 1], "index holds -1"),
            ([0, 2**40, 1], "index holds 1099511627776"),
        ],
    )
    def test_index_out_of_range(self, operation, index, message, backend):
        with pytest.raises(ValueError, match=message):
            FUNCTIONS[operation](torch.ones(3, 2), torch.tensor(index), num_segments=5)

    @pytest.mark.parametrize("operation", FUNCTIONS)
    @pytest.mark.parametrize("ptr", [[1, 3], [0, 2], [0, 4], [0, 2, 1, 3], [0, -1, 3], [3]])
    def test_wrong_ptr(self, operation, ptr, backend):
        with pytest.raises(ValueError, match="ptr runs from "):
            FUNCTIONS[operation](torch.ones(3, 2), ptr=torch.tensor(ptr))

    @pytest.mark.parametrize("num_segments", [_SHORT - 1, _SHORT])
    def test_wrong_ptr_of_few_and_many_segments(self, num_segments):
        """Both ways of checking the boundaries, which their number decides."""
        ptr = torch.arange(num_segments + 1)
        values = torch.rand(num_segments)
        assert torch.equal(segment_sum(values, ptr=ptr), values)
        for place, value in ((0, 1), (num_segments // 2, 0), (num_segments, num_segments - 1)):
            wrong = ptr.clone()
            wrong[place] = value
            with pytest.raises(ValueError, match=f"ptr runs from {wrong[0]} to {wrong[-1]} over"):
                segment_sum(values, ptr=wrong)

    @pytest.mark.parametrize("operation", FUNCTIONS)
    def test_arguments(self, operation):
        call, values, index, ptr = (
            FUNCTIONS[operation],
            torch.ones(3, 2),
            torch.tensor([0, 1, 1]),
            torch.tensor([0, 1, 3]),
        )
        with pytest.raises(ValueError, match="both index and ptr"):
            call(values, index, ptr=ptr)
        with pytest.raises(ValueError, match="neither index nor ptr"):
            call(values)
        with pytest.raises(TypeError, match="values is a list"):
            call([1.0], index)
        with pytest.raises(ValueError, match="values is a scalar"):
            call(torch.tensor(1.0), index)
        with pytest.raises(TypeError, match=r"values is torch\.bool"):
            call(values.bool(), index)
        with pytest.raises(TypeError, match=r"values is torch\.complex64"):
            call(values.to(torch.complex64), index)
        with pytest.raises(TypeError, match=r"index is torch\.int32"):
            call(values, index.int())
        with pytest.raises(TypeError, match="index is list"):
            call(values, [0, 1, 1])
        with pytest.raises(TypeError, match=r"ptr is torch\.float32"):
            call(values, ptr=ptr.float())
        with pytest.raises(ValueError, match=r"index has shape \(2,\)"):
            call(values, index[:2])
        with pytest.raises(ValueError, match=r"index has shape \(3, 1\)"):
            call(values, index.view(3, 1))
        with pytest.raises(ValueError, match=r"ptr has shape \(1, 3\)"):
            call(values, ptr=ptr.view(1, 3))
        with pytest.raises(ValueError, match=r"ptr has shape \(0,\)"):
            call(values, ptr=ptr[:0])
        with pytest.raises(ValueError, match="num_segments is -1"):
            call(values, index, num_segments=-1)
        with pytest.raises(ValueError, match="num_segments is 3, .*ptr .* 2"):
            call(values, ptr=ptr, num_segments=3)
        with pytest.raises(ValueError, match="index is on meta"):
            call(values, index.to("meta"))

    @pytest.mark.parametrize("operation", ["mean", "softmax"])
    def test_integers_where_they_mean_nothing(self, operation):
        with pytest.raises(TypeError, match=r"values is torch\.int64"):
            FUNCTIONS[operation](torch.ones(3, dtype=torch.int64), torch.tensor([0, 0, 1]))

    def test_contents_are_not_read_back_from_other_devices(self):
        """On a device without data only shapes can be looked at: any read back would fail here."""
        values, index = torch.ones(3, 2, device="meta"), torch.zeros(3, dtype=torch.int64, device="meta")
        ptr = torch.zeros(5, dtype=torch.int64, device="meta")
        for operation, call in FUNCTIONS.items():
            rows = 3 if operation == "softmax" else 4
            assert call(values, index, num_segments=4).shape == (rows, 2)
            if operation == "sum":
                assert call(values, ptr=ptr).shape == (rows, 2)


class TestDeterminism:
    @pytest.mark.parametrize("trailing", [(), (17,)])
    @pytest.mark.parametrize("operation", SMOOTH)
    def test_runs_and_threads(self, operation, trailing, backend):
        """Two runs are equal bit by bit, with one thread and with two."""
        problem = make(trailing, num_values=40_000, num_segments=500, dtype=torch.float32)
        threads = torch.get_num_threads()
        for values, segments, _ in layouts(*problem):
            results = []
            try:
                for number in (1, 1, 2, 2):
                    torch.set_num_threads(number)
                    leaf = values.clone().requires_grad_()
                    output = FUNCTIONS[operation](leaf, **segments)
                    results.append((output, *torch.autograd.grad(output.square().sum(), leaf)))
            finally:
                torch.set_num_threads(threads)
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


class TestCompile:
    @pytest.mark.parametrize("operation", ["mean", "min", "softmax"])
    def test_in_one_graph(self, operation):
        torch._dynamo.reset()
        compiled = torch.compile(FUNCTIONS[operation], backend="aot_eager", fullgraph=True)
        for width in (3, 17):
            values, index, ptr = make((width,), dtype=torch.float32)
            for segments in ({"ptr": ptr}, {"index": index, "num_segments": 9}):
                leaf = values.clone().requires_grad_()
                ours, theirs = compiled(leaf, **segments), FUNCTIONS[operation](leaf, **segments)
                torch.testing.assert_close(ours, theirs)
                torch.testing.assert_close(
                    torch.autograd.grad(ours.square().sum(), leaf)[0],
                    torch.autograd.grad(theirs.square().sum(), leaf)[0],
                )

    def test_wrong_index_is_reported(self):
        torch._dynamo.reset()
        compiled = torch.compile(segment_sum, backend="aot_eager", fullgraph=True)
        with pytest.raises(RuntimeError, match=r"index .*num_segments-1"):
            compiled(torch.ones(3, 2), torch.tensor([0, 7, 1]), num_segments=5)
