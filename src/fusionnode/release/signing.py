"""A signature in each message, so that it can be proved whose it is after any number of relays and years.

Ed25519 (RFC 8032). The signature is the last entry of the message's map; what is signed is the map without it.
"""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fusionnode.core import schema

_FIXMAP, _MAP16 = 0x80, 0xDE
_MOST_FIX = 15


class Signer:
    """Signs with one key.

    Args:
        secret: 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw().hex()
        """The public key, hex."""

    def sign(self, payload: bytes) -> bytes:
        """The payload, a msgpack map, with its signature as the last entry.

        Raises:
            ValueError: it is not a map.
        """
        return b"".join((*_grown(payload), schema.SIGNATURE_TAIL, self._key.sign(payload)))


def _grown(payload: bytes) -> tuple[bytes, memoryview]:
    """The head of a map with one entry more, and what follows the head."""
    first = payload[0] if payload else 0
    if _FIXMAP <= first <= _FIXMAP + _MOST_FIX:
        n, rest = first - _FIXMAP, 1
    elif first == _MAP16 and len(payload) > 2:
        (n,) = struct.unpack_from(">H", payload, 1)
        rest = 3
    else:
        raise ValueError("not a message: expected a map")
    n += 1
    head = bytes((_FIXMAP + n,)) if n <= _MOST_FIX else struct.pack(">BH", _MAP16, n)
    return head, memoryview(payload)[rest:]
