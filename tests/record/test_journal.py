from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusionnode.core.types import LinkRecord
from fusionnode.record import journal as journal_module
from fusionnode.record.entries import (
    HEADER_SIZE,
    Command,
    Entry,
    Finish,
    Item,
    LinkEvent,
    Meta,
    QueueDrop,
    Reload,
    Tick,
    bytes_record,
    decode,
    encode,
    record,
)
from fusionnode.record.journal import Journal, JournalError, segments
from fusionnode.record.reader import runs

META = Meta("0", "epoch-1", 5, "c" * 64, "o" * 64, config_text="[node]\nid = 'x'\n")
ITEMS: list[Item] = [
    LinkRecord(10, "radar", b"\x00\x01\x02"),
    LinkRecord(-11, "scope", b""),
    Tick(12),
    LinkEvent("radar", 13, False),
    QueueDrop("radar", 3),
    Command(14, "radar", b"go"),
    Reload(15, "ä = 1"),
    Finish(16, 2, "ab" * 32),
]


def read_all(folder: Path, run: int = -1) -> list[Item]:
    return [entry.item for entry in runs(folder)[run]]


def written(folder: Path, items: list[Item]) -> Path:
    """The journal's only segment."""
    journal = Journal(folder, META)
    for item in items:
        journal.append(item)
    assert journal.close()
    (path,) = segments(folder)
    return path


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    written(tmp_path, ITEMS)
    run = runs(tmp_path)[0]
    entries = list(run)
    assert [e.item for e in entries] == [META, *ITEMS]
    assert [type(e.item) for e in entries] == [type(i) for i in [META, *ITEMS]]
    assert [e.seq for e in entries] == list(range(1, len(ITEMS) + 2))
    assert run.stop is not None
    assert run.stop.reason == "finished"
    assert run.meta == META


@pytest.mark.parametrize("item", [META, *ITEMS], ids=lambda item: type(item).__name__)
def test_every_item_survives_its_encoding(item: Item) -> None:
    kind, body = encode(item)
    assert decode(kind, body) == item


@given(st.integers(0, 255), st.binary(max_size=80))
def test_any_body_decodes_or_is_a_value_error(kind: int, body: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(kind, body)


def test_the_quick_encoding_of_bytes_is_the_plain_one() -> None:
    item = LinkRecord(123456789, "scope-2", bytes(range(256)))
    assert bytes_record(7, *item) == record(7, *encode(item))


def test_many_records_at_once_are_the_same_as_one_by_one(tmp_path: Path) -> None:
    records = [LinkRecord(i, f"link{i % 3}", bytes([i % 256]) * (i % 50)) for i in range(2000)]
    journal = Journal(tmp_path / "a", META, segment_bytes=4096)
    for at in range(0, 2000, 64):
        journal.append_bytes(records[at : at + 64])
    assert journal.close()
    assert len(segments(tmp_path / "a")) > 5
    written(tmp_path / "b", list(records))
    assert read_all(tmp_path / "a") == read_all(tmp_path / "b") == [META, *records]


def test_acknowledged_means_on_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path, META, sync_ms=1000)
    journal.append(Tick(1))
    assert journal.flush()
    assert journal.acknowledged_seq == journal.last_seq == 2
    assert read_all(tmp_path) == [META, Tick(1)]
    journal.append(Tick(2))
    assert journal.close()
    assert read_all(tmp_path) == [META, Tick(1), Tick(2)]


def test_a_new_run_goes_on_in_a_new_segment_behind_the_old_ones(tmp_path: Path) -> None:
    written(tmp_path, [Tick(1)])
    second = Meta("0", "epoch-2", 6, "d" * 64, "o" * 64)
    journal = Journal(tmp_path, second)
    journal.append(Tick(2))
    assert journal.close()
    assert [run.meta.stream_epoch for run in runs(tmp_path)] == ["epoch-1", "epoch-2"]
    assert read_all(tmp_path, 0) == [META, Tick(1)]
    assert read_all(tmp_path, 1) == [second, Tick(2)]


def test_two_nodes_cannot_write_one_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, META)
    with pytest.raises(JournalError, match="another node"):
        Journal(tmp_path, META)
    journal.close()
    Journal(tmp_path, META).close()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot hold a journal"):
        Journal(tmp_path / "file", META)
    with pytest.raises(JournalError, match="expected a folder with journal segments"):
        runs(tmp_path)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int], list[Entry]]:
    """A segment's bytes, the offset behind each of its records, and the records."""
    items = [LinkRecord(i, "radar", bytes([i]) * (i * 7 % 60)) for i in range(20)]
    data = written(tmp_path_factory.mktemp("sample"), list(items)).read_bytes()
    ends, at = [], HEADER_SIZE
    for seq, item in enumerate([META, *items], start=1):
        at += len(record(seq, *encode(item)))
        ends.append(at)
    assert at == len(data)
    return data, ends, [Entry(seq, item) for seq, item in enumerate([META, *items], start=1)]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    cut=st.floats(0, 1),
    tail=st.one_of(
        st.binary(max_size=200), st.integers(0, 5000).map(bytes), st.just(b"\xff" * 40), st.just(b"self")
    ),
)
def test_whatever_the_tail_looks_like_the_complete_records_before_it_are_read(
    cut: float, tail: bytes, sample: tuple[bytes, list[int], list[Entry]], tmp_path: Path
) -> None:
    data, ends, entries = sample
    keep = round(cut * len(data))
    if tail == b"self":
        tail = data[HEADER_SIZE:]  # stale records of the same file, left behind by the file system
    if tail and data[keep : keep + 1] == tail[:1]:
        tail = bytes([tail[0] ^ 0xFF]) + tail[1:]
    (tmp_path / "000001.fnj").write_bytes(data[:keep] + tail)
    run = runs(tmp_path)[0]
    whole = sum(end <= keep for end in ends) if keep >= HEADER_SIZE else 0
    assert list(run) == entries[:whole]
    assert run.stop is not None
    assert run.stop.offset == (0 if keep < HEADER_SIZE else [HEADER_SIZE, *ends][whole])
    assert run.stop.clean == (keep in [HEADER_SIZE, *ends] and not tail)
    if keep >= HEADER_SIZE and len(tail) > 17 and not any(tail) and keep in ends:
        assert run.stop.reason == "zeros"


def test_a_damaged_byte_ends_the_reading_before_its_record(
    sample: tuple[bytes, list[int], list[Entry]], tmp_path: Path
) -> None:
    data, ends, entries = sample
    for at in range(HEADER_SIZE, len(data), 11):
        damaged = bytearray(data)
        damaged[at] ^= 0x40
        (tmp_path / "000001.fnj").write_bytes(damaged)
        assert list(runs(tmp_path)[0]) == entries[: sum(end <= at for end in ends)]


def test_a_missing_segment_ends_the_reading_where_it_would_begin(tmp_path: Path) -> None:
    journal = Journal(tmp_path, META, segment_bytes=4096)
    for i in range(1000):
        journal.append(Tick(i))
    assert journal.close()
    paths = segments(tmp_path)
    assert len(paths) > 4
    paths[2].unlink()
    run = runs(tmp_path)[0]
    items = [entry.item for entry in run]
    assert items == [META, *(Tick(i) for i in range(len(items) - 1))]
    assert 0 < len(items) < 1000
    assert run.stop is not None
    assert (run.stop.reason, run.stop.segment) == ("bad_sequence", paths[3].name)


WRITER = """
import sys, time
from fusionnode.core.types import LinkRecord
from fusionnode.record.entries import Meta
from fusionnode.record.journal import Journal
journal = Journal(sys.argv[1], Meta("0", "e", 0, "c", "o"), segment_bytes=200_000, sync_ms=2)
i = 0
while True:
    journal.append_bytes([LinkRecord(i + k, "radar", b"%d " % (i + k) * 5) for k in range(50)])
    i += 50
    while journal.last_seq - journal.acknowledged_seq > 20_000:
        assert journal.stopped is None
        time.sleep(0.001)  # no faster than the disk
    if i % 5000 == 0:
        print(journal.acknowledged_seq, flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [0]
        while said[-1] <= 20_000:
            said.append(int(process.stdout.readline()))
        process.kill()
        # The last line may have been cut by the kill.
        said += [int(line) for line in process.stdout.read().splitlines(True) if line.endswith("\n")]
    acknowledged = said[-1]
    items = read_all(tmp_path)
    assert len(items) >= acknowledged > 20_000
    assert items[1:] == [LinkRecord(i, "radar", b"%d " % i * 5) for i in range(len(items) - 1)]
    # And a new run can follow at once.
    Journal(tmp_path, META).close()
    assert len(runs(tmp_path)) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True
    )
    if not done or done.returncode:
        pytest.skip("mounting a small file system needs privileges that are not there")
    yield folder
    subprocess.run(["umount", folder], check=True)


def check_fills_up(journal: Journal, alarms: list[str]) -> list[Item]:
    records = [LinkRecord(i, "radar", bytes(1000)) for i in range(100)]
    for _ in range(20):
        journal.append_bytes(records)
        journal.flush()
    assert journal.stopped == "disk_full"
    assert not journal.close()
    assert len(alarms) == 1
    assert "\n" not in alarms[0]
    assert "disk_full" in alarms[0]
    # What was appended is what may have been written plus what was counted as dropped.
    assert journal.last_seq + journal.dropped == 1 + 2000
    items = read_all(journal.directory)
    assert journal.acknowledged_seq <= len(items) <= journal.last_seq
    return items


def test_a_full_disk_stops_the_recording_and_nothing_else(small_disk: Path) -> None:
    alarms: list[str] = []
    items = check_fills_up(Journal(small_disk / "j", META, on_alarm=alarms.append), alarms)
    assert len(items) > 1
    stop = runs(small_disk / "j")[0]
    list(stop)
    assert stop.stop is not None
    assert stop.stop.clean  # the torn tail was cut off


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    alarms: list[str] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
    try:
        check_fills_up(Journal(tmp_path, META, on_alarm=alarms.append), alarms)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_does_not_follow_stops_the_recording_with_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = threading.Event()

    def stuck_sync(fd: int) -> None:
        stuck.wait()

    alarms: list[str] = []
    monkeypatch.setattr(journal_module.os, "fdatasync", stuck_sync)
    journal = Journal(tmp_path, META, buffer_bytes=100_000, segment_bytes=20_000, on_alarm=alarms.append)
    for i in range(1000):
        journal.append(LinkRecord(i, "radar", bytes(1000)))
    assert journal.stopped == "stalled"
    assert journal.dropped > 800
    assert len(alarms) == 1
    stuck.set()
    assert not journal.close()


def test_appending_after_a_stop_is_counted_and_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(journal_module.os, "fdatasync", broken)
    journal = Journal(tmp_path, META)
    assert not journal.flush()
    journal.append_tick(1)
    journal.append_bytes([LinkRecord(1, "radar", b"x")] * 3)
    assert journal.report() == {"records": 1, "acknowledged": 0, "dropped": 4, "stopped": "write_failed"}
    assert not journal.close()
