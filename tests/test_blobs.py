"""Large values: their pieces lie in a file of their own, checked, and found again."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from futurefarm import blobs
from futurefarm.blobs import (
    MissingBlobError,
    Parts,
    Reader,
    Reference,
    SpoiltBlobError,
    Writer,
    attach,
    detach,
    has_trailer,
    in_band,
    loads,
)
from futurefarm.task import dumps_apart

MARK = b"12345678"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.blobs"


@pytest.fixture
def writer(path):
    writer = Writer(path)
    yield writer
    writer.close()


def stored(writer, value, least=1):
    stream, buffers = dumps_apart(value, least)
    return attach(stream, [writer.append(buffer) for buffer in buffers], writer.mark)


def test_a_value_without_large_pieces_has_no_trailer():
    for value in (None, b"FFARblob", "FFARblob", [1, 2], b"."):
        data = pickle.dumps(value)

        assert not has_trailer(data)
        assert Parts(data) == detach(data)


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_attached_is_detached(whole):
    references = [Reference(64, 10, 7), Reference(2**63, 2**40, 2**32 - 1)]
    data = attach(b"stream.", references, MARK, whole=whole)

    assert has_trailer(data)
    found = detach(data)
    assert (tuple(references), MARK, whole) == found[1:]
    assert whole or b"stream." == found.stream


def test_a_trailer_that_does_not_fit_is_refused():
    data = attach(b"stream.", [Reference(64, 10, 7)], MARK)
    for end in range(1, len(data)):
        try:
            detach(data[end:])
        except ValueError:
            continue
        assert data[end:].startswith(b"stream."[end:])  # a shorter stream, which only unpickling tells
    for number in (0, 2, 2**32 - 1):
        spoilt = bytearray(data)
        spoilt[-16:-12] = number.to_bytes(4, "little")
        with pytest.raises(ValueError, match="trailer"):
            detach(bytes(spoilt))


def test_python_alone_says_what_is_missing(writer):
    data = stored(writer, np.arange(100))
    stub = attach(b"", [writer.append(data)], writer.mark, whole=True)
    for each in (data, stub):
        with pytest.raises(pickle.UnpicklingError, match="out-of-band data but no"):
            pickle.loads(each)


VALUES = [
    np.arange(1000.0),
    np.asfortranarray(np.arange(12).reshape(3, 4)),
    {"a": [np.zeros(3), (np.ones((2, 2), "f4"), "text")], "b": 1},
    np.array([(1, 2.0)], [("x", "i4"), ("y", "f8")]),
    [np.zeros(0), np.ones(5)[::2]],
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("mapped", [False, True])
def test_a_value_comes_back(value, mapped, writer, path):
    data = stored(writer, value)
    with Reader(path, mapped=mapped) as reader:
        np.testing.assert_equal(loads(data, reader), value)


def test_copies_can_be_written_to_and_maps_cannot(writer, path):
    data = stored(writer, np.arange(100))
    with Reader(path) as reader, Reader(path, mapped=True) as mapping:
        assert loads(data, reader).flags.writeable
        mapped = loads(data, mapping)
    assert not mapped.flags.writeable
    assert 4950 == mapped.sum()  # though the reader is closed


def test_what_was_read_only_stays_so(writer, path):
    array = np.arange(100)
    array.flags.writeable = False
    data = stored(writer, array)
    with Reader(path) as reader:
        assert not loads(data, reader).flags.writeable


def test_a_file_is_mapped_once_while_it_is_used(writer, path):
    first = stored(writer, np.arange(100))
    with Reader(path, mapped=True) as reader:
        arrays = [loads(first, reader) for _ in range(10)]
        assert 1 == maps_of(path)
        arrays.append(loads(stored(writer, np.ones(100)), reader))
        assert 100 == arrays[-1].sum()
    del arrays
    gc.collect()
    assert 0 == maps_of(path)


def maps_of(path):
    with open("/proc/self/maps") as maps:
        return sum(str(path) in line for line in maps)


def test_a_pickle_that_is_itself_large_is_a_piece(writer, path):
    stream, buffers = dumps_apart({"text": "x" * 10_000, "array": np.arange(100)}, 500)
    pieces = [writer.append(buffer) for buffer in (*buffers, stream)]
    data = attach(stream, pieces, writer.mark, whole=True)

    assert len(data) < 100
    with Reader(path) as reader:
        value = loads(data, reader)
    assert ("x" * 10_000, 4950) == (value["text"], value["array"].sum())


def test_buffers_can_be_put_back_into_the_pickle(writer, path):
    read_only = np.arange(5)
    read_only.flags.writeable = False
    value = [np.arange(100), "x" * 100_000, {"read only": read_only}]
    with Reader(path) as reader:
        data = in_band(*reader.get(detach(stored(writer, value))))

    array, text, rest = pickle.loads(data)
    assert (4950, value[1], 10) == (array.sum(), text, rest["read only"].sum())
    assert (True, False) == (array.flags.writeable, rest["read only"].flags.writeable)


def test_pieces_begin_at_multiples_of_64_behind_the_head(writer, path):
    references = [writer.append(bytes([i]) * size) for i, size in enumerate((1, 64, 65, 3_000_000))]
    writer.sync()

    assert [64, 128, 192, 320] == [reference.offset for reference in references]
    data = path.read_bytes()
    assert b"FFARblob" + writer.mark == data[:16]
    assert all(
        data[offset : offset + size] == bytes([i]) * size for i, (offset, size, _) in enumerate(references)
    )
    assert len(data) == writer.end


def test_a_file_is_for_the_user_alone_and_never_a_link(writer, path):
    assert 0o600 == path.stat().st_mode & 0o777
    link = path.with_name("link")
    link.symlink_to(path)
    for open_ in (Writer, Reader):
        with pytest.raises(OSError, match=r"link|symbolic"):
            open_(link)


def test_another_writer_goes_on_behind_the_first(path):
    references = []
    for i in range(3):
        writer = Writer(path)
        references.append(writer.append(bytes([i]) * 100))
        mark = writer.mark
        writer.close()
        writer.close()
    with Reader(path) as reader:
        assert [bytes([i]) * 100 for i in range(3)] == [bytes(reader.read(each)) for each in references]
    assert mark == path.read_bytes()[8:16]


def test_writers_of_two_processes_take_turns(path):
    writers = [Writer(path), Writer(path)]
    references = [writers[i % 2].append(bytes([i]) * 100) for i in range(6)]
    for writer in writers:
        writer.close()
    with Reader(path) as reader:
        assert [bytes([i]) * 100 for i in range(6)] == [bytes(reader.read(each)) for each in references]


def test_threads_write_at_once(writer, path):
    begin = threading.Barrier(4)

    def write(i):
        begin.wait()
        return [writer.append(bytes([i]) * (50_000 + n)) for n in range(20)]

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write, range(4)))
    with Reader(path) as reader:
        for i, references in enumerate(written):
            for reference in references:
                assert {i} == set(reader.read(reference))


def test_a_flipped_bit_is_noticed(writer, path):
    data = stored(writer, np.zeros(1000))
    spoil(path, 100)
    with Reader(path) as reader:
        with pytest.raises(SpoiltBlobError, match="not what was written"):
            loads(data, reader)
        with pytest.raises(SpoiltBlobError, match="not what was written"):
            reader.verify(detach(data))


def spoil(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x10")


def test_a_flipped_bit_in_the_head_costs_nothing(writer, path):
    data = stored(writer, np.arange(100))
    spoil(path, 9)
    for mapped in (False, True):
        with Reader(path, mapped=mapped) as reader:
            assert 4950 == loads(data, reader).sum()


def test_a_file_of_another_mark_is_checked_also_when_it_is_mapped(writer, path, tmp_path):
    data = stored(writer, np.arange(100))
    other = Writer(tmp_path / "other")
    stored(other, np.zeros(100, int))
    other.close()
    with Reader(other.path, mapped=True) as reader, pytest.raises(SpoiltBlobError):
        loads(data, reader)


def test_a_file_that_is_missing_or_too_short_is_told(writer, path, tmp_path):
    data = stored(writer, np.arange(100_000))
    os.truncate(path, 300_000)
    for mapped in (False, True):
        with Reader(path, mapped=mapped) as reader, pytest.raises(MissingBlobError, match="too short"):
            loads(data, reader)
    with pytest.raises(MissingBlobError, match="missing"):
        Reader(tmp_path / "nowhere")


def test_more_than_the_file_holds_is_not_read(writer, path):
    piece = writer.append(bytes(1 << 20))
    hostile = attach(b"\x80\x05N.", [piece] * 1000, writer.mark)
    with Reader(path) as reader, pytest.raises(MissingBlobError):
        loads(hostile, reader)


def test_a_file_in_the_place_of_the_one_that_is_written_is_left_alone(writer, path):
    writer.append(bytes(1000))
    path.rename(path.with_name("moved"))
    path.write_bytes(b"another")
    with pytest.raises(FileExistsError, match="another file"):
        writer.append(bytes(1000))
    with pytest.raises(FileExistsError, match="another file"):
        writer.sync()

    assert b"another" == path.read_bytes()


def test_a_file_that_became_shorter_is_not_acknowledged(writer, path):
    writer.append(bytes(1000))
    os.truncate(path, 500)
    with pytest.raises(FileExistsError, match="another file"):
        writer.sync()


def test_a_closed_writer_writes_no_more(writer):
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.append(b"x")


def test_what_does_not_fit_on_the_disk_is_given_back(disk):
    writer = Writer(disk.path / "file")
    try:
        kept = writer.append(bytes(1000))
        with pytest.raises(OSError, match="No space") as caught:
            writer.append(bytes(4 << 20))

        assert errno.ENOSPC == caught.value.errno
        assert writer.path.stat().st_size < 2000
        assert 2048 > writer.append(bytes(500)).offset > kept.offset
    finally:
        writer.close()


def test_only_what_was_appended_is_synced(writer, monkeypatch):
    synced = []
    monkeypatch.setattr(blobs.writer, "_sync", synced.append)
    writer.sync()  # its head
    writer.sync()
    assert 1 == len(synced)
    writer.append(b"x")
    writer.sync()
    writer.sync()
    assert 2 == len(synced)


def test_small_buffers_stay_in_the_pickle_and_by_value_works_too(writer, path):
    assert 1 == len(dumps_apart([np.zeros(10), np.ones(1000)], 1000)[1])

    local = type("Local", (), {"__module__": "__main__"})
    instance = local()
    instance.array = np.ones(1000)
    data = stored(writer, [instance.array, instance], 1000)
    with Reader(path) as reader:
        array, again = loads(data, reader)
    assert array is again.array
