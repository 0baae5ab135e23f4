"""``fusionnode keys``: what it writes, what it says, and what it never says."""

import json

import pytest

from fusionnode.cli import main
from fusionnode.security.keyring import Keyring


@pytest.fixture
def run(tmp_path, capsys):
    def run(action, *words, code=0):
        assert main(["keys", action, "--keys", str(tmp_path / "keys"), "--json", *words]) == code
        out, err = capsys.readouterr()
        said.append(out + err)
        return json.loads(out) if out else err

    said: list[str] = []
    run.said = said
    return run


def test_from_a_new_key_to_a_revoked_one(run, tmp_path):
    server = run("new", "group-allies")
    own = run("new", "bravo")
    assert server["key"] != own["key"]
    assert run("allow", "allies", "bravo", own["public"])["by"] == "allies"
    shown = run("show")
    assert shown["keys"] == {"bravo": own["key"], "group-allies": server["key"]}
    assert shown["allowed"] == {"allies": {"bravo": own["key"]}}
    assert run("revoke", "allies", "bravo")["revoked"] == "bravo"
    assert run("show")["allowed"] == {"allies": {}}
    assert run("revoke", "allies", "bravo", code=2).startswith("fusionnode: ")
    assert run("new", "bravo", code=2).count("\n") == 1
    keys = Keyring(tmp_path / "keys")
    for name in ("bravo", "group-allies"):
        assert keys.pair(name).secret.decode() not in "".join(run.said)


def test_a_secret_that_is_none_any_more_is_shown_as_a_fault(run, tmp_path):
    run("new", "group-allies")
    (tmp_path / "keys" / "group-allies.secret").chmod(0o640)
    shown = run("show", code=1)
    assert shown["keys"] == {}
    assert "chmod 600" in shown["faults"][0]


def test_signing_and_offset_keys_are_made_too(run):
    pytest.importorskip("cryptography")
    assert len(run("new", "signing")["key"]) == 64
    assert set(run("new", "offset")) == {"secret"}
    assert run("show")["keys"]["offset"] == "secret only"
