import errno
import io
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile

import pytest
import torch

from graphseq.core import DataError
from graphseq.data import cached, checksum, raw_files
from graphseq.data.cache import cache_folder, complete_or_absent


@pytest.fixture
def folder(tmp_path, monkeypatch, own_cache):
    """A mirror with one data set of two files."""
    mirror = tmp_path / "mirror"
    (mirror / "Toy").mkdir(parents=True)
    (mirror / "Toy" / "a.txt").write_text("alpha")
    (mirror / "Toy" / "b.txt").write_text("beta")
    monkeypatch.setenv("GRAPHSEQ_MIRROR", str(mirror))
    return mirror / "Toy"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_copies_from_the_mirror_and_writes_nothing_there(folder, no_network):
    before = contents(folder)
    files = raw_files("Toy", ["a.txt"], optional=["b.txt", "c.txt"])
    assert {name: path.read_text() for name, path in files.items()} == {"a.txt": "alpha", "b.txt": "beta"}
    assert all(path.is_relative_to(cache_folder()) for path in files.values())
    assert contents(folder) == before


def test_wrong_checksum_is_refused(folder, no_network):
    with pytest.raises(DataError, match=r"a\.txt .*SHA-256 \w+, .*0000: .*verify_checksums=False"):
        raw_files("Toy", ["a.txt"], checksums={"a.txt": "0000"})
    assert "a.txt" not in contents(cache_folder())  # and the refused file is not kept
    good = checksum(folder / "a.txt")
    raw_files("Toy", ["a.txt"], checksums={"a.txt": good})
    # a cached copy that rots later is noticed too
    (cache_folder() / "raw" / "Toy" / "a.txt").write_text("alphb")
    with pytest.raises(DataError, match=r"a\.txt .*SHA-256"):
        raw_files("Toy", ["a.txt"], checksums={"a.txt": good})


def test_missing_everywhere_names_the_places(folder, no_network):
    with pytest.raises(DataError) as caught:
        raw_files("Toy", ["z.txt"], address="https://example.org/toy.zip")
    for part in ("z.txt", str(folder), "https://example.org/toy.zip", "GRAPHSEQ_MIRROR"):
        assert part in str(caught.value)


def test_mirror_that_is_no_folder(monkeypatch, tmp_path, own_cache):
    monkeypatch.setenv("GRAPHSEQ_MIRROR", str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="GRAPHSEQ_MIRROR is .*nothing"):
        raw_files("Toy", ["a.txt"])


def serve(monkeypatch, answers):
    def urlopen(address, timeout):
        if address not in answers:
            raise urllib.error.URLError("not found")
        return io.BytesIO(answers[address])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def archive(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, text in files.items():
            bundle.writestr(f"Toy/{name}.txt", text)
    return buffer.getvalue()


def test_downloads_files_and_archives(monkeypatch, own_cache):
    monkeypatch.delenv("GRAPHSEQ_MIRROR", raising=False)
    serve(monkeypatch, {"http://x/a.txt": b"one", "http://x/toy.zip": archive(b="two", c="three")})
    assert raw_files("Toy", ["a.txt"], address="http://x/{}".format)["a.txt"].read_text() == "one"
    files = raw_files("Toy", ["b.txt"], optional=["c.txt", "d.txt"], address="http://x/toy.zip")
    assert sorted(files) == ["b.txt", "c.txt"]
    with pytest.raises(DataError, match="http://x/e.txt: .*not found"):
        raw_files("Toy", ["e.txt"], address="http://x/{}".format)
    assert not [path for path in cache_folder().rglob("*") if path.name.startswith(".")]


def test_truncated_archive_leaves_nothing(monkeypatch, own_cache):
    monkeypatch.delenv("GRAPHSEQ_MIRROR", raising=False)
    serve(monkeypatch, {"http://x/toy.zip": archive(b="two" * 1000)[:-40]})
    with pytest.raises(DataError, match="http://x/toy.zip .*ZIP"):
        raw_files("Toy", ["b.txt"], address="http://x/toy.zip")
    assert contents(cache_folder()) == {}


def test_cached_builds_once(own_cache):
    calls = []

    def build():
        calls.append(1)
        return {"x": torch.arange(3), "name": "toy"}

    for _ in range(2):
        assert torch.equal(cached("toy", ["k", 1], build)["x"], torch.arange(3))
    assert len(calls) == 1
    cached("toy", ["k", 2], build)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["truncate", "flip", "no seal", "empty"])
def test_damaged_entry_is_built_again(own_cache, damage):
    build = lambda: {"x": torch.arange(1000)}  # noqa: E731
    cached("toy", [1], build)
    (path,) = own_cache.rglob("*.pt")
    whole = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flip":
        path.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    elif damage == "no seal":
        path.with_suffix(".sha256").unlink()
    else:
        path.write_bytes(b"")
    assert torch.equal(cached("toy", [1], build)["x"], torch.arange(1000))
    assert torch.equal(torch.load(path, weights_only=True)["x"], torch.arange(1000))


def test_full_disk_costs_the_cache_entry_not_the_run(own_cache, monkeypatch):
    def full(value, target):
        with open(target, "wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert cached("toy", [1], lambda: {"x": 1}) == {"x": 1}
    assert contents(own_cache) == {}


def test_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail_half_way():
        with complete_or_absent(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert contents(tmp_path) == {"file.txt": b"old"}


def test_a_seal_that_is_no_text_is_damage(own_cache):
    cached("toy", [1], lambda: {"x": 1})
    for path in (cache_folder() / "processed").glob("toy-*.sha256"):
        path.write_bytes(b"\xff\xfe")
    assert cached("toy", [1], lambda: {"x": 2}) == {"x": 2}


def test_an_entry_that_another_process_takes_away(own_cache, monkeypatch):
    cached("toy", [1], lambda: {"x": 1})

    def taken(path):
        path.unlink()
        raise FileNotFoundError(path)

    monkeypatch.setattr("graphseq.data.cache.checksum", taken)
    with pytest.warns(UserWarning, match="toy could not be kept"):
        assert cached("toy", [1], lambda: {"x": 2}) == {"x": 2}


def test_a_cache_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GRAPHSEQ_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="Toy cannot be kept in .*GRAPHSEQ_CACHE"):
        raw_files("Toy", ["a.txt"])
    with pytest.warns(UserWarning, match="toy could not be kept"):
        assert cached("toy", [1], lambda: {"x": 2}) == {"x": 2}


def test_kill_while_writing_leaves_no_half_file_that_is_trusted(tmp_path):
    """A process is killed -9 in the middle of writing a cache entry; the next one builds it anew."""
    script = (
        "import sys, time, torch\n"
        "from graphseq.data import cached\n"
        "def slow(value, target):\n"
        "    open(target, 'wb').write(b'half'); print('writing', flush=True); time.sleep(60)\n"
        "torch.save = slow\n"
        "cached('toy', [1], lambda: {'x': 1})\n"
    )
    environment = {**os.environ, "GRAPHSEQ_CACHE": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "writing"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.05)
    check = "from graphseq.data import cached; print(cached('toy', [1], lambda: {'x': 2}))"
    done = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'x': 2}"
