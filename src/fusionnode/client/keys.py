"""A subscriber's CURVE keys, from files or text. No text that is raised here holds a secret."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

import zmq

_KEY = re.compile(rb"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_LONGEST = 256


class Keys(NamedTuple):
    """The node's public key, and the subscriber's own pair; Z85."""

    server: bytes
    public: bytes
    secret: bytes

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Let a socket speak CURVE with these; before it connects."""
        socket.curve_serverkey = self.server
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret


def load(server_key: str | Path, secret_key_file: str | Path) -> Keys:
    """Keys to connect with.

    Args:
        server_key: the node's public key, 40 characters of Z85, or a file that holds it.
        secret_key_file: the subscriber's own, e.g. as made by ``fusionnode keys new NAME``.

    Raises:
        ValueError: one is not there, is no key, or others can read the secret; the text is one line.
    """
    as_text = str(server_key).encode(errors="replace")
    server = as_text if _KEY.fullmatch(as_text) else _read(Path(server_key))
    if not _KEY.fullmatch(server):
        raise ValueError(f"server key {server_key}: expected 40 characters of Z85, or a file that holds them")
    path = Path(secret_key_file)
    secret = _read(path, secret=True)
    try:
        if not _KEY.fullmatch(secret):
            raise ValueError
        public = zmq.curve_public(secret)
    except (zmq.ZMQError, ValueError):
        raise ValueError(f"{path}: not a secret key: expected 40 characters of Z85") from None
    if server in (secret, public):
        raise ValueError(f"{path}: this is the key given as the node's; expected this subscriber's own")
    return Keys(server, public, secret)


def _read(path: Path, *, secret: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if secret and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ValueError(
                    f"{path}: others can read this secret (mode {stat.S_IMODE(mode):04o}); chmod 600 it, and make "
                    "a new one if others can have read it"
                )
            return file.read(_LONGEST + 1).strip()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
