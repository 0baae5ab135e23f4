import json
import os

import pytest

from fusionnode.record.audit import Audit, AuditError, verify


def filled(path, n=5):
    log = Audit(path)
    for i in range(n):
        log.append("grant", {"track": f"t{i}"})
    log.close()


def test_lines_follow_from_each_other_over_restarts(tmp_path):
    path = tmp_path / "a" / "group-allies.log"
    filled(path)
    filled(path)
    assert verify(path.parent) == {"group-allies.log": 10}
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == list(range(1, 11))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: [*lines[:2], lines[2].replace(b"t2", b"t9"), *lines[3:]],
        lambda lines: [*lines[:2], *lines[3:]],
        lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
        lambda lines: lines[1:],
        lambda lines: [*lines[:3], lines[2], *lines[3:]],
        lambda lines: [*lines[:3], b"rubbish\n", *lines[3:]],
        lambda lines: [*lines[:-1], lines[-1][:-5]],
    ],
)
def test_what_was_changed_is_found(tmp_path, tamper):
    path = tmp_path / "node.log"
    filled(path)
    path.write_bytes(b"".join(tamper(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(AuditError, match=r"node\.log: line"):
        verify(tmp_path)


def test_a_torn_last_line_is_cut_off_and_told(tmp_path):
    path = tmp_path / "node.log"
    filled(path)
    with path.open("ab") as file:
        file.write(b'{"seq":6,"ti')
    filled(path, 1)
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()][5:] == ["torn", "grant"]
    assert verify(tmp_path) == {"node.log": 7}


def test_two_do_not_write_one_log(tmp_path):
    log = Audit(tmp_path / "node.log")
    with pytest.raises(AuditError, match="another process"):
        Audit(tmp_path / "node.log", patience_s=0.05)
    log.close()


def test_a_disk_that_is_full_is_an_error_and_the_chain_holds_afterwards(tmp_path, monkeypatch):
    log = Audit(tmp_path / "node.log")
    log.append("grant", {"track": "a"})
    real = os.write
    left = [25]

    def full(fd, data):
        n = real(fd, data[: left[0]]) if left[0] else 0
        if not n:
            raise OSError(28, "No space left on device")
        left[0] -= n
        return n

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AuditError, match="No space left"):
        log.sync()
    monkeypatch.undo()
    log.append("grant", {"track": "b"})
    log.close()
    assert verify(tmp_path) == {"node.log": 2}
