"""The cache of a node: whole, bounded and shared, whatever ends its writers."""

import os
import subprocess
import sys
import threading

import pytest

from dali_pipeline.storage.cache import INDEX, Cache, _lock_unused
from dali_pipeline.storage.entry import PAGE, size_of
from hvd_utils.cli.errors import BadInput

KB = 1000


def data_of(number, length=10 * KB):
    return bytes([number % 256]) * length


def cache_of(folder, limit=10**9, version="a", replaces=False):
    return Cache(folder, version, limit, replaces)


def kept(cache, numbers):
    return [n for n in numbers if cache.read(n, 0, 10 * KB) == data_of(n)]


def use(cache, number, seconds):
    """Let an entry have been used last so many seconds after the others were."""
    os.utime(cache._path(number), (10**9 + seconds,) * 2)


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (PAGE - 1, 2), (PAGE, PAGE), (5, 10**6)])
def test_any_piece_is_what_was_written(tmp_path, offset, length):
    data = os.urandom(2 * PAGE + 7)
    cache_of(tmp_path).write("key", data)
    other_process = cache_of(tmp_path)
    assert other_process.read("key", offset, length) == data[offset : offset + length]
    assert other_process.read("another", offset, length) is None


@pytest.mark.parametrize("length", [0, 1, 8, PAGE, PAGE + 8, 2 * PAGE + 7, 2 * PAGE + 26])
def test_a_half_written_entry_is_never_read(tmp_path, length):
    cache = cache_of(tmp_path)
    cache.write("key", os.urandom(2 * PAGE + 7))
    os.truncate(cache._path("key"), length)  # as a disk may leave it without power
    assert cache.read("key", 0, 10) is None
    assert not cache.has("key")


def test_a_damaged_byte_is_noticed_in_its_page(tmp_path):
    cache = cache_of(tmp_path)
    data = os.urandom(2 * PAGE)
    cache.write("key", data)
    with cache._path("key").open("r+b") as file:
        file.seek(PAGE + 100)
        file.write(bytes([data[PAGE + 100] ^ 1]))
    assert cache.read("key", 0, PAGE) == data[:PAGE]
    assert cache.read("key", PAGE, 10) is None
    assert not cache.has("key")  # and is fetched anew


def test_what_was_used_least_recently_goes_first(tmp_path):
    cache = cache_of(tmp_path, limit=100 * KB, replaces=True)
    for number in range(9):
        cache.write(number, data_of(number))
        use(cache, number, seconds=number)
    assert kept(cache, [0]) == [0]  # which is its last use
    for number in range(9, 13):
        cache.write(number, data_of(number))
    left = kept(cache, range(13))
    assert left[-4:] == [9, 10, 11, 12]
    assert 0 in left
    assert 1 not in left
    assert size_of(10 * KB) * len(left) <= 100 * KB


def test_in_the_global_order_what_is_there_stays(tmp_path, capsys):
    cache = cache_of(tmp_path, limit=100 * KB)
    for number in range(30):
        cache.write(number, data_of(number))
    left = kept(cache, range(30))
    assert left == list(range(len(left)))
    assert len(left) in (8, 9)
    assert cache.full
    assert capsys.readouterr().out.count("is full: what is not in it") == 1


def test_data_sets_that_nobody_uses_make_room(tmp_path):
    other = cache_of(tmp_path, limit=100 * KB, version="other")
    for number in range(9):
        other.write(number, data_of(number))
    own = cache_of(tmp_path, limit=100 * KB)
    own.write(0, data_of(0))
    assert own.full  # the other one is in use
    assert len(kept(other, range(9))) >= 8
    other._in_use.close()  # its process ends
    own = cache_of(tmp_path, limit=100 * KB)
    for number in range(5):
        own.write(number, data_of(number))
    assert kept(own, range(5)) == list(range(5))


def test_what_is_no_cache_is_never_removed(tmp_path):
    """The folder that is given may hold other things, as /scratch does."""
    precious = [tmp_path / "runs/first/weights.pt", tmp_path / "old/notes/a.txt"]
    for path in precious:
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(90 * KB))
    old = cache_of(tmp_path, version="old")  # a folder of its own there
    old._in_use.close()
    cache = cache_of(tmp_path, limit=100 * KB, replaces=True)
    for number in range(30):
        cache.write(number, data_of(number))
    assert all(path.exists() for path in precious)
    assert kept(cache, range(30))[-1] == 29  # and they take no room from it


def test_a_version_that_is_being_emptied_is_waited_for(tmp_path):
    """Else its index might go between a look at it and its opening."""
    cache_of(tmp_path, version="other")._in_use.close()
    lock = _lock_unused(tmp_path / "other")
    opened = threading.Event()
    threading.Thread(
        target=lambda: (cache_of(tmp_path, version="other"), opened.set()), daemon=True
    ).start()
    assert not opened.wait(0.05)
    lock.close()
    assert opened.wait(120)


@pytest.mark.parametrize("left", [b"", bytes(12), b"12x"])
def test_a_count_that_a_power_cut_left_is_made_anew(tmp_path, left):
    cache = cache_of(tmp_path)
    for number in range(5):
        cache.write(number, data_of(number))
    (tmp_path / "used").write_bytes(left)
    again = cache_of(tmp_path, limit=30 * KB)
    again.write(9, data_of(9))
    assert again.full  # as it is: it counted what is there


def test_caches_of_a_process_write_under_different_names(tmp_path):
    """Those of training and validation: a name of both would mix their bytes."""
    names = [cache_of(tmp_path).partial_path() for _ in range(3)]
    assert len(set(names)) == 3


def test_a_damaged_entry_that_cannot_be_removed_is_read_anew(tmp_path, monkeypatch):
    """It is no error of reading, for which an image would be passed over."""
    cache = cache_of(tmp_path)
    cache.write("key", data_of(1))
    os.truncate(cache._path("key"), 5)

    def refuse(path, **_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert cache.read("key", 0, 10) is None


def test_what_is_being_written_stays_while_anybody_uses_the_version(tmp_path):
    """Also a process of another container, whose number says nothing here."""
    writer = cache_of(tmp_path)
    half = writer.partial_path()
    half.write_bytes(b"half")
    cache_of(tmp_path)
    assert half.exists()
    writer._in_use.close()


def test_the_index_in_use_stays(tmp_path):
    cache = cache_of(tmp_path, limit=100 * KB, replaces=True)
    (cache.folder / INDEX).mkdir()
    (cache.folder / INDEX / "train.index.npz").write_bytes(bytes(40 * KB))
    for number in range(20):
        cache.write(number, data_of(number))
    assert (cache.folder / INDEX / "train.index.npz").exists()
    assert len(kept(cache, range(20))) <= 6  # with the index, within the size


WRITER = """
import sys
from pathlib import Path
from dali_pipeline.storage.cache import Cache
cache = Cache(Path(sys.argv[1]), "a", 10**9, False)
for number in range(10**6):
    cache.write(number, bytes([number % 256]) * 300_000)
    if number == 20:
        print("some", flush=True)
"""


def test_a_killed_writer_leaves_nothing_half_written(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE)
    with writer:
        assert writer.stdout.readline() == b"some\n"
        writer.kill()
    (tmp_path / "a/partial/half").write_bytes(b"half")
    cache = cache_of(tmp_path)
    number = 0
    while cache.has(number):
        assert cache.read(number, 0, 300_000) == data_of(number, 300_000)
        number += 1
    assert number > 20
    assert list((tmp_path / "a/partial").iterdir()) == []


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot use --cache .*file: Not a directory"):
        cache_of(tmp_path / "file")


def test_a_disk_that_refuses_is_told_once_and_reading_goes_on(tmp_path, capsys, monkeypatch):
    cache = cache_of(tmp_path)
    monkeypatch.setattr(cache, "partial_path", lambda: tmp_path / "nowhere" / "x")
    cache.write(1, data_of(1))
    cache.write(2, data_of(2))
    assert cache.read(1, 0, 5) is None
    assert capsys.readouterr().out.count("cannot be written (No such file or directory)") == 1
