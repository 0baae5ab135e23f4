"""Released messages on disk: what comes back, after restarts, tears and changes of policy."""

import os

import pytest

from fusionnode.release.history import History
from fusionnode.release.spool import Spool

ALL = 1 << 62
MANY = 1 << 30


def payload(epoch, seq):
    return f"{epoch}/{seq}/".encode() * (1 + seq % 7)


def payloads(epoch, first, last):
    return [payload(epoch, seq) for seq in range(first, last + 1)]


@pytest.fixture
def spool(tmp_path):
    made = []

    def make(policy="p1", limit=1 << 30, age_s=1e6):
        made.append(Spool(tmp_path / "spool", policy, limit_bytes=limit, age_s=age_s))
        return made[-1]

    yield make
    for one in made:
        one.close()


def everything(kept, epoch, first, most=10_000):
    """What a subscriber gets who asks again and again, and the epoch that follows."""
    got = []
    while True:
        stretch = kept.get(epoch, first, ALL, most)
        if stretch is None:
            return got, "not kept"
        assert sum(map(len, stretch.payloads[:-1])) <= most
        assert stretch.last == first + len(stretch.payloads) - 1
        got += stretch.payloads
        if stretch.next is None:
            return got, stretch.next_epoch
        first = stretch.next


def test_what_was_written_comes_back_over_segments_restarts_and_epochs(spool):
    one = spool(limit=1 << 18)
    for first in range(1, 2001, 50):
        one.add("e1", first, payloads("e1", first, first + 49))
    two = spool(limit=1 << 18)  # while the first was not closed: killed
    two.add("e1", 2001, payloads("e1", 2001, 2100))
    two.add("e2", 1, payloads("e2", 1, 10))
    three = spool(limit=1 << 18)
    for kept in (two, three):
        assert everything(kept, "e1", 1) == (payloads("e1", 1, 2100), "e2")
        assert everything(kept, "e1", 1234) == (payloads("e1", 1234, 2100), "e2")
        assert everything(kept, "e1", 2101) == ([], "e2")
        assert everything(kept, "e2", 1) == (payloads("e2", 1, 10), None)
        assert kept.get("e1", 300, 310, MANY).payloads == payloads("e1", 300, 310)
        for epoch, first in (("e1", 2102), ("e2", 12), ("e3", 1), ("e1", 0)):
            assert kept.get(epoch, first, ALL, MANY) is None


def test_a_hole_is_told(spool):
    kept = spool()
    kept.add("e1", 1, payloads("e1", 1, 10))
    kept.add("e1", 21, payloads("e1", 21, 30))
    stretch = kept.get("e1", 5, ALL, MANY)
    assert (len(stretch.payloads), stretch.next) == (6, 11)
    assert kept.get("e1", 11, ALL, MANY) is None or kept.get("e1", 11, ALL, MANY).payloads == []
    assert kept.get("e1", 15, ALL, MANY) is None
    assert everything(kept, "e1", 21) == (payloads("e1", 21, 30), None)


@pytest.mark.parametrize("cut", [1, 5, 9, 12, 30])
def test_a_torn_tail_costs_the_last_records_only(spool, tmp_path, cut):
    one = spool()
    one.add("e1", 1, payloads("e1", 1, 100))
    (path,) = (tmp_path / "spool").glob("*.seg")
    os.truncate(path, path.stat().st_size - cut)
    kept = spool()
    got, _ = everything(kept, "e1", 1)
    assert got == payloads("e1", 1, len(got))
    assert 94 <= len(got) < 100
    kept.add("e1", len(got) + 1, payloads("e1", len(got) + 1, 120))
    assert everything(kept, "e1", 1) == (payloads("e1", 1, 120), None)


def test_a_flipped_bit_gives_nothing_wrong(spool, tmp_path):
    one = spool()
    one.add("e1", 1, payloads("e1", 1, 100))
    one.close()
    (path,) = (tmp_path / "spool").glob("*.seg")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    for kept in (spool(),):
        got, _ = everything(kept, "e1", 1)
        assert got == payloads("e1", 1, len(got))
        assert len(got) < 100
    (path.with_suffix(".idx")).unlink()
    got, _ = everything(spool(), "e1", 1)
    assert got == payloads("e1", 1, len(got))


def test_only_todays_policy_is_served(spool):
    kept = spool("p1")
    kept.add("e1", 1, payloads("e1", 1, 50))
    kept.set_policy("p2")
    assert kept.get("e1", 1, ALL, MANY) is None
    kept.add("e1", 51, payloads("e1", 51, 100))
    assert kept.get("e1", 50, ALL, MANY) is None
    assert everything(kept, "e1", 51) == (payloads("e1", 51, 100), None)
    kept.add("e2", 1, payloads("e2", 1, 5))
    again = spool("p1")
    assert again.get("e1", 51, ALL, MANY) is None
    got, rest = everything(again, "e1", 1)
    assert (got, rest) == (
        payloads("e1", 1, 50),
        "not kept",
    )  # not the end of the stream: more of it was released otherwise
    assert everything(spool("p2"), "e1", 51) == (payloads("e1", 51, 100), "e2")


def test_the_oldest_goes_when_it_is_too_much_or_too_old(spool, tmp_path):
    kept = spool(limit=1 << 17)
    for first in range(1, 20_001, 100):
        kept.add("e1", first, payloads("e1", first, first + 99))
    assert kept.size <= (1 << 17) + (1 << 14)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.seg"))
    assert on_disk == kept.size
    assert kept.get("e1", 1, ALL, MANY) is None
    got, _ = everything(kept, "e1", 19_000)
    assert got == payloads("e1", 19_000, 20_000)
    kept.close()
    for path in (tmp_path / "spool").glob("*.seg"):
        os.utime(path, (1, 1))
    assert spool(age_s=1000.0).size == 0


def test_a_disk_that_takes_nothing_is_told_and_stops_nothing(spool, tmp_path, monkeypatch):
    kept = spool()
    kept.add("e1", 1, payloads("e1", 1, 10))
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:40]))
    kept.add("e1", 11, payloads("e1", 11, 20))
    kept.add("e1", 21, payloads("e1", 21, 30))
    monkeypatch.undo()
    assert "full" in kept.fault
    assert everything(kept, "e1", 1)[0] == payloads("e1", 1, 10)
    assert everything(spool(), "e1", 1)[0][:10] == payloads("e1", 1, 10)


def test_memory_keeps_the_newest(spool):
    kept = History(20_000)
    for first in range(1, 2001, 50):
        kept.add("e1", first, payloads("e1", first, first + 49))
    assert kept.bytes <= 20_000
    assert kept.get("e1", 1, ALL, MANY) is None
    got, rest = everything(kept, "e1", 1950)
    assert (got, rest) == (payloads("e1", 1950, 2000), None)
    assert kept.get("e1", 2001, ALL, MANY).payloads == []
    assert kept.get("e1", 2002, ALL, MANY) is None
    kept.add("e2", 1, payloads("e2", 1, 5))
    assert everything(kept, "e1", 1990) == (payloads("e1", 1990, 2000), "e2")
    kept.clear()
    assert kept.get("e2", 1, ALL, MANY) is None
