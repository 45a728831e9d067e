"""When loops compiled for a processor serve, and what happens without numba."""

import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import nn

from graphseq.nn import TimeEncoder
from graphseq.ops import mail_gru, processor
from graphseq.ops.processor import use_compiled
from graphseq.ops.time_encoding import cosines


def test_loops_serve_plain_numbers_of_one_type():
    x = torch.zeros(3)
    assert use_compiled(x, nn.Parameter(x))
    assert use_compiled(x.double(), x.double())
    for others in ((x, x.double()), (x.bfloat16(),), (x.bool(),), (x, x.to("meta")), (x.to("meta"),)):
        assert not use_compiled(*others)


def test_loops_do_not_serve_what_only_stands_for_a_tensor():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.zeros(3))
    assert not use_compiled(fake)
    encoder = TimeEncoder(3)
    with FakeTensorMode() as mode, torch.no_grad():
        time = (mode.from_tensor(parameter) for parameter in (encoder.weight, encoder.bias))
        assert cosines(mode.from_tensor(torch.zeros(4)), *time).shape == (4, 3)


def test_without_numba_torch_does_the_same_and_says_so_once(monkeypatch):
    monkeypatch.setattr(processor, "_numba_imports", processor._numba_imports.__wrapped__)
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it raises ImportError
    with pytest.warns(UserWarning, match="numba"):
        assert not use_compiled(torch.zeros(2))
    program = """
import sys, warnings
sys.modules["numba"] = None
import torch
from graphseq.nn.temporal.plan import Distinct
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        print(Distinct(9)(torch.tensor([5, 2, 5]))[0].tolist())
print(sum("numba cannot be imported" in str(one.message) for one in caught))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split("\n")[:3] == ["[5, 2]", "[5, 2]", "1"], done.stderr


def test_numba_is_not_imported_before_a_loop_is_called():
    program = "import sys; from graphseq.models import TGN; import graphseq.ops.gru; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def _twice(x):
    return 2 * x


def _twice_and_one(x):
    return _twice(x) + 1


def test_inlined_functions_are_found_through_each_other(monkeypatch):
    monkeypatch.setattr(processor, "_INLINED", {_twice, _twice_and_one})
    assert processor.compile_loop(lambda x: _twice_and_one(x) + _twice(x))(3) == 13


def test_one_process_at_a_time_compiles_a_loop(tmp_path, monkeypatch):
    """The other one then finds it on disk; numba would have both write one file for different types."""
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    loop = processor._compiled(_twice)
    with FileLock(Path(loop._cache.cache_path) / f"{loop._cache._impl.filename_base}.lock"):
        thread = threading.Thread(target=loop, args=(3,))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert not list(tmp_path.rglob("*.nbi"))
    thread.join()
    assert loop(4) == 8
    assert list(tmp_path.rglob("*.nbi"))


def test_loops_are_compiled_where_nothing_can_be_kept(monkeypatch):
    import numba

    real, asked = numba.njit, []

    def without_a_place(*args, **options):
        asked.append(options.get("cache", False))
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(*args, **options)

    monkeypatch.setattr(numba, "njit", without_a_place)
    assert processor.compile_loop(lambda x: x + 1)(2) == 3
    assert asked == [True, False]


def test_what_is_given_is_not_written_to():
    """Inputs that are not contiguous are copied, and no view of a caller's tensor is an output."""
    encoder = TimeEncoder(3)
    wide = torch.randn(5, 8)
    before = wide.clone()
    cell = nn.GRUCell(4 + 4 + 3, 4)
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh, encoder.weight, encoder.bias)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mail_gru(wide[:, :4], wide[:, 4:], torch.arange(5), *weights)
    assert torch.equal(wide, before)
