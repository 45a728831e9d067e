import sys
import types
import warnings

import pytest
import torch

from graphseq.core import OptionalDependencyError
from graphseq.ops import segment_backend, segment_max, segment_sum
from graphseq.ops.segment import backends as file


def torch_scatter_usable():
    try:
        with segment_backend("torch_scatter") as name:
            return name == "torch_scatter"
    except OptionalDependencyError:
        return False


NEEDS_TORCH_SCATTER = pytest.mark.skipif(not torch_scatter_usable(), reason="torch-scatter is not installed")


@pytest.fixture
def fresh_import(monkeypatch):
    """Forget whether torch_scatter could be imported, before and after."""
    file._torch_scatter.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    file._torch_scatter.cache_clear()


class _Broken:
    """An import hook under which torch_scatter fails as a build for another torch does."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name == "torch_scatter":
            raise self.error
        return None


def break_torch_scatter(monkeypatch, error):
    monkeypatch.delitem(sys.modules, "torch_scatter", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Broken(error), *sys.meta_path])


class TestBackend:
    @pytest.mark.parametrize(
        "error",
        [
            OSError("undefined symbol: _ZN3c10"),
            RuntimeError("other CUDA"),
            ImportError("no _scatter_cpu"),
            ModuleNotFoundError("No module named 'scipy'", name="scipy"),
        ],
    )
    def test_broken_torch_scatter_warns(self, fresh_import, error):
        break_torch_scatter(fresh_import, error)
        chosen = segment_backend("torch_scatter")
        with pytest.warns(UserWarning, match="torch-scatter .*--no-build-isolation") as caught:
            name = chosen.__enter__()
        assert name == "native"
        assert segment_sum(torch.ones(3), torch.tensor([0, 1, 1])).tolist() == [1, 2]
        chosen.__exit__(None, None, None)
        assert str(error) in str(caught[0].message)
        assert caught[0].filename == __file__

    def test_broken_torch_scatter_under_a_rule_that_wants_it(self, fresh_import):
        break_torch_scatter(fresh_import, OSError("undefined symbol"))
        fresh_import.setitem(file._FASTEST, ("sum", True), "torch_scatter")
        with pytest.warns(UserWarning, match="undefined symbol"):
            assert segment_sum(torch.ones(3), ptr=torch.tensor([0, 1, 3])).tolist() == [1, 2]

    def test_missing_torch_scatter(self, fresh_import):
        break_torch_scatter(fresh_import, ModuleNotFoundError("No module", name="torch_scatter"))
        with (
            pytest.raises(OptionalDependencyError, match=r"segment_backend\('torch_scatter'\)"),
            segment_backend("torch_scatter"),
        ):
            pass
        fresh_import.setitem(file._FASTEST, ("sum", True), "torch_scatter")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # not installed is nothing to warn of
            assert segment_sum(torch.ones(3), ptr=torch.tensor([0, 1, 3])).tolist() == [1, 2]

    def test_rule_decides_not_presence(self, fresh_import):
        used = []
        stub = types.ModuleType("torch_scatter")
        stub.segment_sum_csr = lambda values, ptr: used.append("sum") or torch.zeros(2)
        stub.segment_max_csr = lambda values, ptr: used.append("max") or (torch.zeros(2), torch.zeros(2).long())
        fresh_import.setitem(sys.modules, "torch_scatter", stub)
        values, ptr = torch.ones(3), torch.tensor([0, 1, 3])
        segment_sum(values, ptr=ptr)
        segment_max(values, ptr=ptr)
        assert used == []
        fresh_import.setitem(file._FASTEST, ("max", True), "torch_scatter")
        segment_sum(values, ptr=ptr)
        segment_max(values, ptr=ptr)
        assert used == ["max"]
        with segment_backend("native"):
            segment_max(values, ptr=ptr)
        with segment_backend("torch_scatter"):
            segment_sum(values, ptr=ptr)
            with segment_backend("auto"):
                segment_sum(values, ptr=ptr)
        segment_sum(values, ptr=ptr)
        assert used == ["max", "sum"]

    def test_restored_after_an_error(self):
        with pytest.raises(KeyError), segment_backend("native"):
            raise KeyError
        assert file._chosen.get() == "auto"

    def test_unknown(self):
        with pytest.raises(ValueError, match="backend 'cuda'"), segment_backend("cuda"):
            pass
