"""Frames of the sensor interface: ``0x00 COBS(message, CRC-32) 0x00``, out of a stream of bytes and into one.

The rules (firmware_interfaces/ICD.md, "Framing"): what lies between two delimiters is one frame, good or
bad; nothing between them is no frame; what comes before the first delimiter, or is unfinished at the end, is
rubbish, counted in bytes. No more than `MAX_FRAME` bytes are ever kept from one call to the next.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.outcome import Outcome, Outcomes

MAX_MESSAGE = 240
MIN_MESSAGE = 24
CRC_SIZE = 4
MAX_FRAME = MAX_MESSAGE + CRC_SIZE + 1  # COBS adds one byte to anything shorter than 254

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Frames(NamedTuple):
    """Messages whose CRC is right, in order of arrival; n is their number."""

    payload: Bytes  # all messages, one after the other
    offsets: Ints  # [n], where each begins in payload
    lengths: Ints  # [n], without CRC
    ends: Ints  # [n], bytes of this call's data up to and including the frame's closing delimiter


class Deframer:
    """Takes the bytes of one link, cut anywhere, and gives the messages in them; counts what was no message.

    Bad frames are counted here; a good one is the caller's to count, once its contents are judged.
    """

    def __init__(self, link_id: str, outcomes: Outcomes) -> None:
        self._link_id = link_id
        self._outcomes = outcomes
        self._mode = _SEEKING
        self._tail = b""

    def feed(self, data: bytes) -> Frames:
        """Messages whose closing delimiter is in ``data``."""
        kept = len(self._tail)
        stream = np.frombuffer(self._tail + data if kept else data, np.uint8)
        payload = np.empty(stream.size, np.uint8)
        table = np.empty((3, stream.size // (MIN_MESSAGE + CRC_SIZE + 2) + 1), np.int64)
        counts = np.zeros(_COUNTERS, np.int64)
        n, mode, rest = _deframe(stream, self._mode, payload, table, counts, _CRC_TABLE)
        self._mode = mode
        self._tail = stream[rest:].tobytes()
        if counts.any():
            for outcome, count in zip(_COUNTED, counts.tolist(), strict=True):
                self._outcomes.add(self._link_id, outcome, count)
        offsets, lengths, ends = table[:, :n]
        ends -= kept
        return Frames(payload, offsets, lengths, ends)

    def finish(self) -> None:
        """No more will come: what is unfinished is rubbish, and the next byte fed begins a new stream."""
        self._outcomes.add(self._link_id, Outcome.RUBBISH_BYTES, len(self._tail))
        self._tail = b""
        self._mode = _SEEKING


def frame(message: bytes) -> bytes:
    """The message as a frame with both delimiters.

    Raises:
        ValueError: the message is longer than `MAX_MESSAGE`.
    """
    if len(message) > MAX_MESSAGE:
        raise ValueError(f"a message has at most {MAX_MESSAGE} bytes, not {len(message)}")
    plain = message + zlib.crc32(message).to_bytes(CRC_SIZE, "little")
    # Shorter than 254 bytes, so each run between zeros fits one COBS block.
    return b"\0" + b"".join(bytes([len(run) + 1]) + run for run in plain.split(b"\0")) + b"\0"


@kernel
def gather(payload: Bytes, offsets: Ints, rows: Bytes) -> None:
    """Copy messages of one length into the rows of a matrix: ``rows[i] = payload[offsets[i]:][:width]``."""
    width = rows.shape[1]
    for i in range(offsets.size):
        at = offsets[i]
        for k in range(width):
            rows[i, k] = payload[at + k]


_SEEKING, _READING, _SKIPPING = 0, 1, 2  # before the first delimiter; in a frame; in one found too long

_COUNTED = (
    Outcome.FRAME_BAD_COBS,
    Outcome.FRAME_BAD_CRC,
    Outcome.FRAME_TOO_LONG,
    Outcome.FRAME_BAD_LENGTH,
    Outcome.RUBBISH_BYTES,
)
_COUNTERS = len(_COUNTED)
_BAD_COBS, _BAD_CRC, _TOO_LONG, _BAD_LENGTH, _RUBBISH = range(_COUNTERS)


def _crc_table() -> npt.NDArray[np.uint32]:
    """Slicing-by-8 tables: ``table[k, b]`` is the CRC of byte b followed by k zero bytes. uint32[8, 256]."""
    table = np.zeros((8, 256), np.uint32)
    table[0] = np.arange(256)
    for _ in range(8):
        table[0] = (table[0] >> 1) ^ (table[0] & 1) * np.uint32(0xEDB88320)
    for k in range(1, 8):
        table[k] = table[0][table[k - 1] & 0xFF] ^ (table[k - 1] >> 8)
    return table


_CRC_TABLE = _crc_table()


@kernel
def _crc32(data: Bytes, start: int, stop: int, table: npt.NDArray[np.uint32]) -> np.uint32:
    """CRC-32 of data[start:stop], eight bytes a step (slicing-by-8: M. Kounavis, F. Berry, ISCC 2005)."""
    crc = np.uint32(0xFFFFFFFF)
    i = start
    while i + 8 <= stop:
        crc = (
            table[7, data[i] ^ (crc & np.uint32(0xFF))]
            ^ table[6, data[i + 1] ^ ((crc >> np.uint32(8)) & np.uint32(0xFF))]
            ^ table[5, data[i + 2] ^ ((crc >> np.uint32(16)) & np.uint32(0xFF))]
            ^ table[4, data[i + 3] ^ (crc >> np.uint32(24))]
            ^ table[3, data[i + 4]]
            ^ table[2, data[i + 5]]
            ^ table[1, data[i + 6]]
            ^ table[0, data[i + 7]]
        )
        i += 8
    while i < stop:
        crc = table[0, (crc ^ np.uint32(data[i])) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
        i += 1
    return np.uint32(crc ^ np.uint32(0xFFFFFFFF))


@kernel
def _uncobs(data: Bytes, start: int, stop: int, out: Bytes, at: int) -> int:
    """Decode data[start:stop], which holds no zero, to out[at:]; the end in out, or -1."""
    i = start
    while i < stop:
        code = int(data[i])
        if i + code > stop:
            return -1
        for k in range(i + 1, i + code):
            out[at] = data[k]
            at += 1
        i += code
        if code != 255 and i < stop:
            out[at] = 0
            at += 1
    return at


@kernel
def _deframe(
    data: Bytes, mode: int, payload: Bytes, table: Ints, counts: Ints, crc_table: npt.NDArray[np.uint32]
) -> tuple[int, int, int]:
    """Find all messages in data; gives their number, the mode, and where the unfinished rest begins.

    ``table``: rows of offsets, lengths, ends. ``counts``: by position in _COUNTED.
    """
    n = 0
    used = 0  # of payload
    begin = 0  # of the open frame
    size = data.size
    i = 0
    while i < size:
        while i < size and data[i] != 0:
            i += 1
        length = i - begin
        if mode == _SEEKING:
            counts[_RUBBISH] += length
        elif mode == _READING and length > MAX_FRAME:
            counts[_TOO_LONG] += 1
        elif mode == _READING and length > 0 and i < size:
            stop = _uncobs(data, begin, i, payload, used)
            message_end = stop - CRC_SIZE
            if stop < 0:
                counts[_BAD_COBS] += 1
            elif message_end < used or not _crc_right(payload, used, message_end, crc_table):
                counts[_BAD_CRC] += 1
            elif message_end - used < MIN_MESSAGE:
                counts[_BAD_LENGTH] += 1
            else:
                table[0, n] = used
                table[1, n] = message_end - used
                table[2, n] = i + 1
                n += 1
                used = message_end
        if i < size:
            mode = _READING
            i += 1
            begin = i
        elif mode == _READING and length > MAX_FRAME:
            mode = _SKIPPING
    if mode != _READING:
        begin = size  # nothing is kept of rubbish, nor of a frame already counted
    return n, mode, begin


@kernel
def _crc_right(payload: Bytes, start: int, stop: int, table: npt.NDArray[np.uint32]) -> bool:
    sent = (
        np.uint32(payload[stop])
        | (np.uint32(payload[stop + 1]) << np.uint32(8))
        | (np.uint32(payload[stop + 2]) << np.uint32(16))
        | (np.uint32(payload[stop + 3]) << np.uint32(24))
    )
    return bool(sent == _crc32(payload, start, stop, table))
