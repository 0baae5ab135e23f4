"""Whether a message was signed by the node: Ed25519 over the payload without its last entry (docs/WIRE.md)."""

from __future__ import annotations

import re
from typing import Final

from fusionnode.client.decode import FORGED, UNSIGNED, Refused
from fusionnode.core.schema import SIGNATURE_BYTES, SIGNATURE_TAIL

_ENTRY_BYTES: Final = len(SIGNATURE_TAIL) + SIGNATURE_BYTES
_KEY: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


def signed_bytes(payload: bytes) -> bytes | None:
    """What the signature at the end of a payload is over; None if it has none in the form of the document."""
    if payload[-_ENTRY_BYTES:-SIGNATURE_BYTES] != SIGNATURE_TAIL:
        return None
    if 0x81 <= payload[0] <= 0x8F:
        entries, rest = payload[0] & 0x0F, payload[1:-_ENTRY_BYTES]
    elif payload[0] == 0xDE:
        entries, rest = int.from_bytes(payload[1:3], "big"), payload[3:-_ENTRY_BYTES]
        if entries < 16:
            return None
    else:
        return None
    entries -= 1
    return (bytes([0x80 | entries]) if entries < 16 else b"\xde" + entries.to_bytes(2, "big")) + rest


class Signer:
    """A node's signing key, to check messages with.

    Args:
        public_key: 64 hexadecimal digits.

    Raises:
        ValueError: it is no key, or the package ``cryptography`` is not installed; the text is one line.
    """

    def __init__(self, public_key: str) -> None:
        if not _KEY.fullmatch(public_key):
            raise ValueError("signing key: expected 64 hexadecimal digits, as in the node's signing.public")
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            raise ValueError(
                "checking signatures needs the package cryptography: pip install cryptography"
            ) from None
        self.public_key = public_key.lower()
        self._key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        self._invalid = InvalidSignature

    def verify(self, payload: bytes) -> None:
        """Return if the payload is signed with this key.

        Raises:
            Refused: it is not signed, or not with this key, or was changed.
        """
        signed = signed_bytes(payload)
        if signed is None:
            raise Refused(UNSIGNED)
        try:
            self._key.verify(payload[-SIGNATURE_BYTES:], signed)
        except self._invalid:
            raise Refused(FORGED) from None
