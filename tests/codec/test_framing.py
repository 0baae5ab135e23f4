from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest
from wire_samples import frames, messages, sensor_frames

from fusionnode.codec.framing import MAX_FRAME, MAX_MESSAGE, Deframer, frame
from fusionnode.codec.wire import MessageType
from fusionnode.core.outcome import Outcome, Outcomes

FRAMES = sensor_frames(60)


class Reader:
    """A deframer, with its messages as bytes."""

    def __init__(self) -> None:
        self.outcomes = Outcomes()
        self.deframer = Deframer("l", self.outcomes)

    def feed(self, data: bytes) -> list[bytes]:
        found = self.deframer.feed(data)
        return [
            found.payload[at : at + n].tobytes() for at, n in zip(found.offsets, found.lengths, strict=True)
        ]

    def counts(self) -> dict[str, int]:
        return self.outcomes.of("l")


MESSAGES = Reader().feed(b"".join(FRAMES))


def test_every_frame_of_a_stream_is_read() -> None:
    assert [frame(message) for message in MESSAGES] == FRAMES


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 79, 80, 1000])
def test_a_frame_split_over_reads_is_read_once(size: int) -> None:
    reader = Reader()
    stream = b"".join(FRAMES)
    found = [m for at in range(0, len(stream), size) for m in reader.feed(stream[at : at + size])]
    assert found == MESSAGES
    assert reader.counts() == {}


def test_rubbish_on_both_sides_costs_no_frame() -> None:
    reader = Reader()
    assert reader.feed(b"\x11\x22\x33" + FRAMES[0] + b"\xa5\x5a" + FRAMES[1] + b"\x77") == MESSAGES[:2]
    reader.deframer.finish()
    assert reader.counts() == {Outcome.FRAME_BAD_COBS: 1, Outcome.RUBBISH_BYTES: 4}


def test_delimiters_may_be_shared_and_repeated() -> None:
    reader = Reader()
    assert reader.feed(b"\0\0\0" + FRAMES[0][:-1] + FRAMES[1] + b"\0\0" + FRAMES[2]) == MESSAGES[:3]
    assert reader.counts() == {}


def test_ends_say_where_each_frame_closes() -> None:
    reader = Reader()
    stream = FRAMES[0] + FRAMES[1]
    reader.deframer.feed(stream[:10])
    found = reader.deframer.feed(stream[10:])
    assert found.ends.tolist() == [len(FRAMES[0]) - 10, len(stream) - 10]


def test_a_cut_frame_costs_itself_alone() -> None:
    reader = Reader()
    assert reader.feed(FRAMES[0][:20] + FRAMES[1]) == MESSAGES[1:2]
    assert sum(reader.counts().values()) == 1


def test_any_flipped_bit_is_noticed() -> None:
    whole = frames(messages(MessageType.RADAR, 1))[0]
    flipped = []
    for bit in range(8, 8 * (len(whole) - 1)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        flipped.append(bytes(data))
    reader = Reader()
    assert reader.feed(b"".join(flipped)) == []
    assert sum(reader.counts().values()) >= len(flipped)


def test_too_long_is_counted_once_and_skipped_to_the_next_delimiter() -> None:
    for cut in (1, 100, 300, 10_000):
        reader = Reader()
        stream = b"\0" + b"\x55" * 1000 + FRAMES[0]
        found = [m for at in range(0, len(stream), cut) for m in reader.feed(stream[at : at + cut])]
        reader.deframer.finish()
        assert found == MESSAGES[:1]
        assert reader.counts() == {Outcome.FRAME_TOO_LONG: 1}


def test_the_longest_message_passes_and_one_byte_more_does_not() -> None:
    longest = bytes(1 + k % 255 for k in range(MAX_MESSAGE))
    assert len(frame(longest)) == MAX_FRAME + 2
    reader = Reader()
    assert reader.feed(frame(longest)) == [longest]
    with pytest.raises(ValueError, match="240"):
        frame(longest + b"x")


@pytest.mark.parametrize("size", [0, 1, 23])
def test_less_than_a_header_is_a_bad_length(size: int) -> None:
    reader = Reader()
    assert reader.feed(frame(b"x" * size)) == []
    assert reader.counts() == {Outcome.FRAME_BAD_LENGTH: 1}


def test_crc_is_zlibs_at_every_length() -> None:
    rng = np.random.default_rng(3)
    wanted = [rng.bytes(n) for n in range(24, MAX_MESSAGE + 1)]
    reader = Reader()
    assert reader.feed(b"".join(map(frame, wanted))) == wanted
    message = wanted[0]
    wrong = message + (zlib.crc32(message) ^ 1).to_bytes(4, "little")
    stuffed = b"\0" + b"".join(bytes([len(run) + 1]) + run for run in wrong.split(b"\0")) + b"\0"
    assert reader.feed(stuffed) == []
    assert reader.counts() == {Outcome.FRAME_BAD_CRC: 1}


def test_nothing_in_gives_nothing_out() -> None:
    reader = Reader()
    assert reader.feed(b"") == []
    reader.deframer.finish()
    assert reader.counts() == {}


def test_after_finish_a_new_stream_begins() -> None:
    reader = Reader()
    reader.feed(FRAMES[0][:30])
    reader.deframer.finish()
    assert reader.feed(FRAMES[0][30:] + FRAMES[1]) == MESSAGES[1:2]
    assert reader.counts() == {Outcome.RUBBISH_BYTES: len(FRAMES[0]) - 2}


def test_bytes_without_a_delimiter_are_not_kept() -> None:
    reader = Reader()
    block = b"\x42" * 100_000
    reader.feed(b"\0" + block)
    tracemalloc.start()
    for _ in range(50):
        reader.feed(block)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20_000
    assert reader.counts() == {Outcome.FRAME_TOO_LONG: 1}
