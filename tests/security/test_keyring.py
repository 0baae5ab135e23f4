import pytest
import zmq
from zmq.utils import z85

from fusionnode.security.keyring import Keyring, KeyringError


@pytest.fixture
def keys(tmp_path):
    return Keyring(tmp_path / "keys")


def test_a_new_pair_is_kept_secret_and_read_back(keys):
    public = keys.new("group-allies")
    pair = keys.pair("group-allies")
    assert pair.public == public == zmq.curve_public(pair.secret)
    assert (keys.directory / "group-allies.secret").stat().st_mode & 0o777 == 0o600
    assert keys.directory.stat().st_mode & 0o777 == 0o700
    assert pair.secret.decode() not in repr(pair)
    assert (keys.directory / "group-allies.public").read_bytes() == public + b"\n"


def test_nothing_is_ever_overwritten(keys):
    keys.new("group-allies")
    before = keys.pair("group-allies")
    with pytest.raises(KeyringError, match="there already"):
        keys.new("group-allies")
    assert keys.pair("group-allies") == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o644])
def test_a_secret_that_others_can_read_is_refused_in_one_line(keys, mode):
    keys.new("group-allies")
    secret = keys.pair("group-allies").secret.decode()
    (keys.directory / "group-allies.secret").chmod(mode)
    with pytest.raises(KeyringError, match="chmod 600") as failure:
        keys.pair("group-allies")
    assert "\n" not in str(failure.value)
    assert secret not in str(failure.value)


@pytest.mark.parametrize("text", [b"", b"short", b"x" * 41, bytes(40), b'"' * 40, b"\xff" * 40, b"a" * 5000])
def test_what_is_no_key_is_refused_and_not_shown(keys, text):
    keys.new("group-allies")
    (keys.directory / "group-allies.secret").write_bytes(text)
    with pytest.raises(KeyringError) as failure:
        keys.pair("group-allies")
    shown = text.decode(errors="replace").strip("\x00")
    assert len(shown) < 5 or shown not in str(failure.value)


def test_halves_that_do_not_belong_together_are_refused(keys):
    keys.new("group-allies")
    (keys.directory / "group-allies.public").write_bytes(zmq.curve_keypair()[0])
    with pytest.raises(KeyringError, match="not the public half"):
        keys.pair("group-allies")


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "a.b", "x" * 65, "-a", "a b", "a\n"])
def test_names_stay_within_the_folder(keys, name):
    for act in (keys.new, keys.pair, keys.public, lambda name: keys.revoke("allies", name)):
        with pytest.raises(KeyringError):
            act(name)
    with pytest.raises(KeyringError):
        keys.revoke(name, "bravo")


def test_signing_and_offset_keys(keys):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    keys.new("signing")
    key = ed25519.Ed25519PrivateKey.from_private_bytes(keys.signing_secret())
    assert key.public_key().public_bytes_raw().hex() == keys.signing_public()
    assert keys.new("offset") is None
    assert len(keys.offset_secret()) == 32
    assert not (keys.directory / "offset.public").exists()
    (keys.directory / "offset.secret").chmod(0o644)
    with pytest.raises(KeyringError, match="chmod 600"):
        keys.offset_secret()


def _public(tmp_path, name="sent.public"):
    public = zmq.curve_keypair()[0]
    (tmp_path / name).write_bytes(public + b"\r\n")
    return z85.decode(public), tmp_path / name


def test_who_was_allowed_may_come_in_until_revoked(keys, tmp_path):
    (bravo, file), (charlie, other) = _public(tmp_path), _public(tmp_path, "other")
    keys.allow("allies", "bravo", file)
    keys.allow("allies", "charlie", other)
    assert keys.allowed("allies").names == {bravo: "bravo", charlie: "charlie"}
    assert keys.allowed("others").names == {}
    assert keys.doors() == ["allies"]
    keys.revoke("allies", "bravo")
    assert keys.allowed("allies").names == {charlie: "charlie"}
    with pytest.raises(KeyringError, match="there is none"):
        keys.revoke("allies", "bravo")


def test_a_secret_cannot_be_allowed_by_mistake_and_bad_files_let_nobody_in(keys, tmp_path):
    key, file = _public(tmp_path)
    keys.allow("allies", "bravo", file)
    folder = keys.directory / "allowed" / "allies"
    (folder / "rubbish.public").write_bytes(b'"' * 40)
    (folder / "empty.public").write_bytes(b"")
    (folder / "zero.public").write_bytes(z85.encode(bytes(32)))
    (folder / "note.txt").write_bytes(b"hello")
    (folder / "gone.public").symlink_to("/nowhere")
    found = keys.allowed("allies")
    assert found.names == {key: "bravo"}
    assert len(found.faults) == 4
    (folder / "twin.public").write_bytes(file.read_bytes())
    assert keys.allowed("allies").names == {}
    (folder / "twin.public").unlink()
    (folder / "bravo.public").chmod(0o646)
    assert keys.allowed("allies").names == {}
    (folder / "bravo.public").chmod(0o644)
    folder.chmod(0o777)
    assert keys.allowed("allies").names == {}
    with pytest.raises(KeyringError):
        keys.allow("allies", "x", folder / "empty.public")
    keys.new("own")
    with pytest.raises(KeyringError, match="is a secret"):
        keys.allow("allies", "x", keys.directory / "own.secret")
