"""Keys as files: who this node is, and who may come in.

In one folder::

    NAME.secret  NAME.public      a CURVE pair; the server's of a group is group-GROUP, that of a link link-LINK
    signing.secret  .public       Ed25519, 32 bytes in hex
    offset.secret                 32 random bytes in hex
    allowed/DOOR/WHO.public       who may come in by a door: a group's name, or link-LINK

A CURVE key is 40 characters of Z85, as ZeroMQ's RFC 32 has it. A secret is read only if nobody else can read it. No
text that is raised here holds a secret.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

SIGNING = "signing"
OFFSET = "offset"
_ALLOWED = "allowed"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_Z85_KEY = re.compile(rb"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_HEX_KEY = re.compile(rb"[0-9a-fA-F]{64}")
_LONGEST = 256  # bytes; no key file is longer
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class KeyringError(Exception):
    """A key that is not there or cannot be used; the text is one line and holds no secret."""


@dataclass(frozen=True)
class Pair:
    """A CURVE pair, Z85."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Allowed:
    """Who may come in by one door: name by public key (32 bytes), and what is wrong with other files, a line each."""

    names: dict[bytes, str]
    faults: tuple[str, ...] = ()


def server_name(group: str) -> str:
    """The name of a group's server key."""
    return f"group-{group}"


def link_name(link: str) -> str:
    """The name of a link's key, and of its door."""
    return f"link-{link}"


class Keyring:
    """One folder of keys; nothing is read before it is asked for."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def pair(self, name: str) -> Pair:
        """A CURVE pair.

        Raises:
            KeyringError: not there, not a key, its halves do not belong together, or others can read the secret.
        """
        secret = self._secret(name, _Z85_KEY)
        try:
            public = zmq.curve_public(secret)
        except (zmq.ZMQError, ValueError):
            raise KeyringError(f"{self._path(name, 'secret')}: not a key") from None
        if self.public(name) != public:
            raise KeyringError(f"{self._path(name, 'public')}: not the public half of {name}.secret")
        return Pair(public, secret)

    def public(self, name: str) -> bytes:
        """The public half of a CURVE pair, Z85.

        Raises:
            KeyringError: not there, or not a key.
        """
        path = self._path(name, "public")
        text = _read(path)
        if not _Z85_KEY.fullmatch(text):
            raise KeyringError(f"{path}: not a key: expected 40 characters of Z85")
        return text

    def signing_secret(self) -> bytes:
        """The node's Ed25519 secret, 32 bytes.

        Raises:
            KeyringError: as for `pair`.
        """
        return bytes.fromhex(self._secret(SIGNING, _HEX_KEY).decode())

    def signing_public(self) -> str:
        """The node's Ed25519 public key, hex.

        Raises:
            KeyringError: not there, or not a key.
        """
        path = self._path(SIGNING, "public")
        text = _read(path)
        if not _HEX_KEY.fullmatch(text):
            raise KeyringError(f"{path}: not a key: expected 64 hex digits")
        return text.decode()

    def offset_secret(self) -> bytes:
        """The key of the offsets, 32 bytes.

        Raises:
            KeyringError: as for `pair`.
        """
        return bytes.fromhex(self._secret(OFFSET, _HEX_KEY).decode())

    def new(self, name: str) -> bytes | None:
        """Make a key: ``signing``, ``offset``, or a CURVE pair. Gives the public half (None: it has none).

        Raises:
            KeyringError: there is one already (it is left as it is), or the folder cannot be written.
        """
        _require_name(name)
        public: bytes | None
        if name == OFFSET:
            secret, public = os.urandom(32).hex().encode(), None
        elif name == SIGNING:
            secret, public = _new_signing_pair()
        else:
            public, secret = zmq.curve_keypair()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_new(self._path(name, "secret"), secret, 0o600)
            if public is not None:
                _write_new(self._path(name, "public"), public, 0o644)
        except FileExistsError as error:
            raise KeyringError(f"{error.filename}: there already; take it away first") from None
        except OSError as error:
            raise KeyringError(f"{error.filename or self.directory}: {error.strerror}") from None
        return public

    def names(self) -> list[str]:
        """Every key's name, sorted.

        Raises:
            KeyringError: the folder cannot be read.
        """
        try:
            found = [path.stem for path in self.directory.iterdir() if path.suffix in (".secret", ".public")]
        except OSError as error:
            raise KeyringError(f"{self.directory}: {error.strerror}") from None
        return sorted(dict.fromkeys(found))

    def doors(self) -> list[str]:
        """Every door that anybody was allowed in by, sorted."""
        try:
            return sorted(path.name for path in (self.directory / _ALLOWED).iterdir() if path.is_dir())
        except OSError:
            return []

    def allowed(self, door: str) -> Allowed:
        """Who may come in by a door. What cannot be read or is not a key lets nobody in; nothing is raised."""
        folder = self.directory / _ALLOWED / door
        names: dict[bytes, str] = {}
        faults: list[str] = []
        twice: dict[bytes, list[str]] = {}
        try:
            if folder.stat().st_mode & stat.S_IWOTH:
                return Allowed({}, (f"{folder}: anybody can write there, so nobody is let in by it",))
            files = sorted(path for path in folder.iterdir() if path.suffix == ".public")
        except FileNotFoundError:
            return Allowed({})
        except OSError as error:
            return Allowed({}, (f"{folder}: {error.strerror}",))
        for path in files:
            try:
                if path.stat().st_mode & stat.S_IWOTH:
                    raise KeyringError(f"{path}: anybody can write it, so it lets nobody in")
                key = _decoded(path, _read(path))
                _require_name(path.stem)
            except KeyringError as error:
                faults.append(str(error))
                continue
            except OSError as error:
                faults.append(f"{path}: {error.strerror}")
                continue
            twice.setdefault(key, []).append(path.stem)
        for key, owners in twice.items():
            if len(owners) > 1:
                faults.append(f"{folder}: {' and '.join(owners)} have the same key: neither is let in")
            else:
                names[key] = owners[0]
        return Allowed(names, tuple(faults))

    def public_of(self, door: str, who: str) -> bytes:
        """The public key, Z85, of one who may come in by a door.

        Raises:
            KeyringError: not there, or not a key.
        """
        _require_name(who)
        path = self.directory / _ALLOWED / door / f"{who}.public"
        text = _read(path)
        _decoded(path, text)
        return text

    def allow(self, door: str, who: str, file: str | Path) -> Path:
        """Let the owner of the public key in ``file`` in by a door. Gives the file that was written.

        Raises:
            KeyringError: not a key, or it cannot be written.
        """
        _require_name(door)
        _require_name(who)
        if Path(file).suffix == ".secret":
            raise KeyringError(f"{file}: this is a secret; expected the file with its public half")
        text = _read(Path(file))
        _decoded(Path(file), text)
        folder = self.directory / _ALLOWED / door
        target = folder / f"{who}.public"
        try:
            for path in (self.directory, folder.parent, folder):
                path.mkdir(mode=0o700, exist_ok=True, parents=True)
            part = folder / f".{who}.part"
            part.unlink(missing_ok=True)
            _write_new(part, text, 0o644)
            part.replace(target)
            _sync_folder(folder)
        except OSError as error:
            raise KeyringError(f"{error.filename or target}: {error.strerror}") from None
        return target

    def revoke(self, door: str, who: str) -> Path:
        """Let somebody in by a door no more. Gives the file that was taken away.

        Raises:
            KeyringError: there was none, or it cannot be taken away.
        """
        _require_name(door)
        _require_name(who)
        path = self.directory / _ALLOWED / door / f"{who}.public"
        try:
            path.unlink()
            _sync_folder(path.parent)
        except FileNotFoundError:
            raise KeyringError(f"{path}: there is none: {who} is not let in by {door}") from None
        except OSError as error:
            raise KeyringError(f"{path}: {error.strerror}") from None
        return path

    def _path(self, name: str, suffix: str) -> Path:
        _require_name(name)
        return self.directory / f"{name}.{suffix}"

    def _secret(self, name: str, form: re.Pattern[bytes]) -> bytes:
        path = self._path(name, "secret")
        text = _read(path, secret=True)
        if not form.fullmatch(text):
            raise KeyringError(f"{path}: not a key")
        return text


def _decoded(path: Path, text: bytes) -> bytes:
    if not _Z85_KEY.fullmatch(text):
        raise KeyringError(f"{path}: not a public key: expected 40 characters of Z85")
    try:
        key = z85.decode(text)
    except (ValueError, OverflowError, KeyError, ArithmeticError, TypeError):
        key = b""
    except Exception:  # noqa: BLE001 - struct.error and what else a codec may raise
        key = b""
    if len(key) != 32 or not any(key):
        raise KeyringError(f"{path}: not a public key")
    return key


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise KeyringError(f"{name!r}: expected a name of letters, digits, - and _")


def _read(path: Path, *, secret: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            if secret and (mode := os.fstat(file.fileno()).st_mode) & _OTHERS:
                raise KeyringError(
                    f"{path}: others can read or change this secret (mode {stat.S_IMODE(mode):04o}); chmod 600 it, "
                    "and make a new one if others can have read it"
                )
            return file.read(_LONGEST + 1).strip()
    except OSError as error:
        raise KeyringError(f"{path}: {error.strerror}") from None


def _write_new(path: Path, text: bytes, mode: int) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, mode)
    try:
        os.fchmod(fd, mode)
        os.write(fd, text + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _new_signing_pair() -> tuple[bytes, bytes]:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise KeyringError(
            "signing: the package cryptography is missing; it comes with 'fusionnode[node]'"
        ) from None
    key = Ed25519PrivateKey.generate()
    return key.private_bytes_raw().hex().encode(), key.public_key().public_bytes_raw().hex().encode()
