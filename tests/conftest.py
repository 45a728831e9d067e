"""Seeds, one thread, a cache of its own, and memory that nobody may read before writing it."""

import gc
import importlib.util
import os
import sys
import warnings

# children and workers of tests must not fight for the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore", message=".*LeafSpec")

# before torch_geometric, as on the command line: both have Optional[Union] of int and float in another order, of which
# typing keeps the first, and by Lightning's the option --trainer.limit_test_batches=1 is one batch and not all
import lightning.pytorch  # noqa: F401 - for its order, see above
import pytest
import torch

REAL_EMPTY = torch.empty


def pytest_terminal_summary(terminalreporter):
    """Say which optional packages the run had: what needs the others was skipped."""
    states = (
        f"{name} {'tested' if importlib.util.find_spec(name) else 'not installed, so not tested'}"
        for name in (
            *("torch_scatter", "torch_sparse", "numba", "rdkit", "h5py", "PIL", "onnxruntime", "statsmodels"),
            *("skimage", "pywt"),
        )
    )
    terminalreporter.write_line(f"optional packages: {'; '.join(states)}")


def _poisoned_empty(*args, **kwargs):
    """`torch.empty` for code of the package: floats are NaN, integers far out of range."""
    out = REAL_EMPTY(*args, **kwargs)
    caller = sys._getframe(1).f_globals.get("__name__", "")
    if caller.startswith("graphseq."):
        if out.is_floating_point():
            out.fill_(float("nan"))
        elif out.dtype in (torch.int32, torch.int64):
            out.fill_(torch.iinfo(out.dtype).min // 2)
    return out


def pytest_collection_finish():
    """Leave what is imported by now out of garbage collection, whose every full pass would go through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _reproducible(monkeypatch):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, "empty", _poisoned_empty)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """One cache for the whole run: real data are parsed once, and nothing of the user's is touched.

    The workers of pytest-xdist share it, since entries appear under their names only when they are complete.
    """
    run = tmp_path_factory.getbasetemp()
    folder = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "graphseq-cache"
    folder.mkdir(exist_ok=True)
    previous = os.environ.get("GRAPHSEQ_CACHE")
    os.environ["GRAPHSEQ_CACHE"] = str(folder)
    yield folder
    if previous is None:
        del os.environ["GRAPHSEQ_CACHE"]
    else:
        os.environ["GRAPHSEQ_CACHE"] = previous


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache for one test."""
    monkeypatch.setenv("GRAPHSEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_network(monkeypatch):
    """Every download fails, as it does on a machine without a network."""
    import urllib.error
    import urllib.request

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def mirror():
    """The folder of real raw files, or a skip that says so."""
    if not os.environ.get("GRAPHSEQ_MIRROR"):
        pytest.skip("GRAPHSEQ_MIRROR is not set: no real data here")
    return os.environ["GRAPHSEQ_MIRROR"]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return torch.device(request.param)


@pytest.fixture(scope="module", params=["compiled", "operations of torch"])
def way(request):
    """Both ways of computing the same on a processor: compiled loops, and the operations that accelerators take."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "compiled":
            patch.setattr("graphseq.ops.processor._numba_imports", lambda: False)
        yield request.param


@pytest.fixture
def as_an_accelerator(monkeypatch):
    """No value is read and no loop compiled, so that a processor takes the way of accelerators."""
    monkeypatch.setattr("graphseq.ops.processor._numba_imports", lambda: False)
    for module in ("decoder", "memory"):
        monkeypatch.setattr(f"graphseq.nn.temporal.{module}.reads_are_free", lambda device: False)
