"""Any bytes give frames or counted bad frames, never an exception, never unbounded memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_samples import content, frames, messages, plain_counts, sensor_frames

from fusionnode.codec.messages import FramesDecoder
from fusionnode.codec.wire import MessageType
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import Decoded

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

POOL = sensor_frames(40, seed=7)
FRAME_LEVEL = ("bad_cobs", "bad_crc", "too_long")


def run(chunks: Iterable[bytes]) -> tuple[list[Decoded], dict[str, int]]:
    outcomes = Outcomes()
    decoder = FramesDecoder("f", outcomes)
    decoded = [decoder.decode([(0, chunk)]) for chunk in chunks]
    decoded.append(decoder.finish())
    return decoded, outcomes.of("f")


def joined(decoded: list[Decoded]) -> tuple[bytes, str]:
    reports = [report for part in decoded for report in part.reports]
    return content(np.concatenate([part.detections for part in decoded])), repr(reports)


def frames_seen(counts: dict[str, int]) -> int:
    return sum(n for name, n in counts.items() if name.startswith("frame_"))


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Good frames, damaged ones, short noise rich in zeros and ones, and long runs."""
    whole = st.sampled_from(POOL)
    damaged = st.builds(
        lambda f, at, byte: f[: at % len(f)] + bytes([byte]) + f[at % len(f) + 1 :],
        whole, st.integers(0, 100), st.integers(0, 255),
    )  # fmt: skip
    cut = st.builds(lambda f, a, b: f[a:b], whole, st.integers(0, 20), st.integers(20, 80))
    noise = st.lists(st.sampled_from([0, 0, 1, 2, 5, 255]), max_size=30).map(bytes)
    long = st.builds(lambda byte, n: bytes([byte]) * n, st.integers(1, 255), st.integers(200, 600))
    pieces = draw(st.lists(st.one_of(whole, damaged, cut, noise, st.binary(max_size=40), long), max_size=8))
    return b"".join(pieces)


@settings(max_examples=300, deadline=None)
@given(streams(), st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_whole_byte_by_byte_and_in_random_cuts_give_the_same(stream: bytes, sizes: list[int]) -> None:
    whole, counts = run([stream])
    single, single_counts = run(stream[i : i + 1] for i in range(len(stream)))
    assert (joined(single), single_counts) == (joined(whole), counts)
    parts, rest = [], stream
    while rest:
        size = sizes[len(parts) % len(sizes)]
        parts.append(rest[:size])
        rest = rest[size:]
    cut, cut_counts = run(parts)
    assert (joined(cut), cut_counts) == (joined(whole), counts)


@settings(max_examples=300, deadline=None)
@given(streams())
def test_the_fast_path_agrees_with_the_plain_one(stream: bytes) -> None:
    decoded, counts = run([stream])
    plain, accepted = plain_counts(stream)
    assert frames_seen(counts) == sum(n for verdict, n in plain.items() if verdict != "rubbish")
    assert counts.get(Outcome.RUBBISH_BYTES, 0) == plain.get("rubbish", 0)
    for verdict in FRAME_LEVEL:
        assert counts.get(f"frame_{verdict}", 0) == plain.get(verdict, 0)
    fields_refused = counts.get(Outcome.FRAME_BAD_FIELD, 0) + counts.get(Outcome.FRAME_UNEXPECTED, 0)
    assert counts.get(Outcome.FRAME_ACCEPTED, 0) + fields_refused == len(accepted)
    found = sum(len(part.detections) + len(part.reports) for part in decoded)
    assert found == counts.get(Outcome.FRAME_ACCEPTED, 0)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_frame_with_rubbish_around_it_is_read(before: bytes, after: bytes) -> None:
    decoded, counts = run([before + POOL[0] + after])
    assert sum(len(part.detections) + len(part.reports) for part in decoded) >= 1
    assert counts[Outcome.FRAME_ACCEPTED] >= 1


@pytest.mark.parametrize("kind", list(MessageType))
def test_any_contents_under_a_right_crc_have_one_outcome(kind: MessageType) -> None:
    rows = messages(kind, 5000)
    bodies = rows.view(np.uint8).reshape(5000, -1)
    rng = np.random.default_rng(kind)
    bodies[np.arange(2500), rng.integers(0, bodies.shape[1], 2500)] = rng.integers(0, 256, 2500)
    bodies[2500:, 16:] = rng.integers(0, 256, bodies[2500:, 16:].shape)
    decoded, counts = run(frames(rows))
    assert frames_seen(counts) == 5000
    found = sum(len(part.detections) + len(part.reports) for part in decoded)
    assert found == counts.get(Outcome.FRAME_ACCEPTED, 0)


DAMAGED = 1_000_000
ROUND = 50_000


def damage(stream: Bytes, lengths: Ints, rng: np.random.Generator) -> Bytes:
    """Every frame of the stream damaged in one way: bits flipped, head or tail lost, spliced onto another
    frame's tail, bytes twice, bytes lost, zeros put in."""
    n = lengths.size
    starts = np.cumsum(lengths) - lengths
    way = rng.integers(0, 7, n)
    out = stream.copy()
    copies = np.ones(stream.size, np.int64)
    place = np.arange(stream.size) - np.repeat(starts, lengths)
    cut = np.repeat(rng.integers(1, lengths), lengths)
    each = np.repeat(way, lengths)

    def somewhere(which: int, at_most: int) -> Ints:
        chosen = np.repeat(np.flatnonzero(way == which), rng.integers(1, at_most + 1, (way == which).sum()))
        return starts[chosen] + rng.integers(0, lengths[chosen])

    flips = somewhere(0, 6)
    np.bitwise_xor.at(out, flips, (1 << rng.integers(0, 8, flips.size)).astype(np.uint8))
    copies[(each == 1) & (place >= cut)] = 0
    copies[(each == 2) & (place < cut)] = 0
    spliced = np.flatnonzero((each == 3) & (place >= cut))
    out[spliced] = stream[
        (spliced + np.repeat(rng.integers(0, stream.size, n), lengths)[spliced]) % stream.size
    ]
    copies[somewhere(4, 3)] += 1
    copies[somewhere(5, 3)] = 0
    zeros = somewhere(6, 3)
    copies[zeros] = 2
    ends = np.cumsum(copies)
    out = np.repeat(out, copies)
    out[ends[zeros] - 1] = 0
    return out


def test_of_a_million_damaged_frames_none_is_accepted_with_other_contents() -> None:
    half = ROUND // 2
    radar = frames(messages(MessageType.RADAR, half, seed=11))
    optical = frames(messages(MessageType.OPTICAL, half, seed=12, first_seq=half))
    originals = [f for pair in zip(radar, optical, strict=True) for f in pair]
    lengths = np.array([len(f) for f in originals])
    stream = np.frombuffer(b"".join(originals), np.uint8)
    reference = run([stream.tobytes()])[0][0].detections
    reference["t_rx_ns"] = 0
    by_seq = reference[np.argsort(reference["seq"])]

    rng = np.random.default_rng(20_261_124)
    intact = 0
    for _ in range(DAMAGED // ROUND):
        damaged = damage(stream, lengths, rng)
        cuts = np.sort(rng.integers(0, damaged.size, 50))
        decoded, counts = run(part.tobytes() for part in np.split(damaged, cuts))
        accepted = np.concatenate([part.detections for part in decoded])
        assert accepted.size == counts[Outcome.FRAME_ACCEPTED]
        assert not any(part.reports for part in decoded)
        assert accepted["seq"].max(initial=0) < ROUND
        assert content(accepted) == content(by_seq[accepted["seq"]])
        intact += accepted.size

        delimiters = np.flatnonzero(damaged == 0)
        open_end = damaged.size - 1 - delimiters[-1]
        assert frames_seen(counts) == int((np.diff(delimiters) > 1).sum()) + (open_end > 245)
        rubbish = int(delimiters[0]) + (open_end if open_end <= 245 else 0)
        assert counts.get(Outcome.RUBBISH_BYTES, 0) == rubbish
    # Damage that hits no more than a delimiter leaves a frame whole: that is not much of it.
    assert intact < 0.02 * DAMAGED
