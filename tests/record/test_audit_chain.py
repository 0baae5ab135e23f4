import json
import os
import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionnode.cli import main
from fusionnode.record.audit import Audit, AuditError, entries, examine, head_path, verify

LINES = 12


def filled(path, n=LINES, **options):
    log = Audit(path, **options)
    log.append("started", {})
    for i in range(n - 2):
        log.append("grant", {"track": f"n-{i:06d}", "rule": "leo"})
        log.sync()
    log.append("stopped", {})
    log.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of a log and of its head."""
    path = tmp_path_factory.mktemp("whole") / "node.log"
    filled(path)
    return path.read_bytes(), head_path(path).read_bytes()


def faults(folder, log, head, **options):
    folder.mkdir(exist_ok=True)
    (folder / "node.log").write_bytes(log)
    (folder / "node.log.head").write_bytes(head)
    (checked,) = examine(folder, **options)
    return checked.faults


CHANGES = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.just(0)),
    st.tuples(st.just("remove_line"), st.integers(0, LINES - 1), st.integers(1, 3)),
    st.tuples(st.just("copy_line"), st.integers(0, LINES - 1), st.integers(0, LINES - 2)),
    st.tuples(st.just("swap"), st.integers(0, LINES - 1), st.integers(0, LINES - 1)),
    st.tuples(st.just("remove_byte"), st.floats(0, 1, exclude_max=True), st.just(0)),
    st.tuples(st.just("insert_byte"), st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
    st.tuples(st.just("insert_line"), st.integers(0, LINES - 1), st.integers(0, 99)),
)


def changed(data, change):
    how, a, b = change
    lines = data.splitlines(keepends=True)
    at = int(a * len(data)) if isinstance(a, float) else 0
    if how == "flip":
        return data[:at] + bytes([data[at] ^ b]) + data[at + 1 :]
    if how == "cut":
        return data[:at]
    if how == "remove_byte":
        return data[:at] + data[at + 1 :]
    if how == "insert_byte":
        return data[:at] + bytes([b]) + data[at:]
    if how == "remove_line":
        del lines[a : a + b]
    elif how == "copy_line":
        lines.insert(a, lines[b])
    elif how == "insert_line":
        forged = json.loads(lines[a]) | {"track": f"n-{b}"}
        lines.insert(a, json.dumps(forged, separators=(",", ":")).encode() + b"\n")
    else:
        lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


@settings(max_examples=400, deadline=None)
@given(change=CHANGES)
def test_any_change_to_a_log_is_found(whole, tmp_path_factory, change):
    log, head = whole
    tampered = changed(log, change)
    folder = tmp_path_factory.getbasetemp() / "tampered"
    assert faults(folder, log, head) == []
    if tampered != log:
        assert faults(folder, tampered, head)


@settings(max_examples=60, deadline=None)
@given(change=CHANGES)
def test_what_was_changed_stays_told_after_the_next_start(whole, tmp_path_factory, change):
    log, head = whole
    tampered = changed(log, change)
    folder = tmp_path_factory.getbasetemp() / "restarted"
    folder.mkdir(exist_ok=True)
    (folder / "node.log").write_bytes(tampered)
    (folder / "node.log.head").write_bytes(head)
    try:
        filled(folder / "node.log", 3)
    except AuditError:
        return  # it says so, and touches nothing
    (checked,) = examine(folder)
    assert bool(checked.faults) == (tampered != log)


def test_a_damaged_head_is_found(whole, tmp_path):
    log, head = whole
    for at in range(len(head)):
        assert faults(tmp_path, log, head[:at] + bytes([head[at] ^ 1]) + head[at + 1 :])
    assert faults(tmp_path, log, head[:-1])
    (tmp_path / "node.log.head").unlink()
    assert examine(tmp_path)[0].faults
    (tmp_path / "node.log").unlink()
    (tmp_path / "node.log.head").write_bytes(head)
    assert "missing at the end" in examine(tmp_path)[0].faults[0]


def test_a_chain_made_anew_needs_a_head_that_was_kept_elsewhere(tmp_path, capsys):
    folder = tmp_path / "audit"
    filled(folder / "group-allies.log")
    assert main(["audit", "head", "--directory", str(folder)]) == 0
    kept = tmp_path / "kept.txt"
    kept.write_text(capsys.readouterr().out)
    filled(folder / "group-allies.log", 4)
    check = ["audit", "verify", "--directory", str(folder)]
    assert main([*check, "--expect", str(kept)]) == 0
    # Another story from the first line on, with a head of its own.
    (folder / "group-allies.log").unlink()
    head_path(folder / "group-allies.log").unlink()
    filled(folder / "group-allies.log", 40)
    assert main(check) == 0
    assert main([*check, "--expect", str(kept)]) == 1
    assert "kept elsewhere" in capsys.readouterr().out
    # All of it gone.
    for path in folder.iterdir():
        path.unlink()
    assert main([*check, "--expect", str(kept)]) == 1
    assert main(check) == 2


def test_the_chain_goes_on_over_files(tmp_path):
    path = tmp_path / "node.log"
    for _ in range(3):
        filled(path, 30, rotate_bytes=2_000)
    files = sorted(tmp_path.glob("node.log.0*"))
    assert len(files) > 5
    lines = list(entries(path))
    assert [entry["seq"] for entry in lines] == list(range(1, len(lines) + 1))
    assert sum(entry["kind"] == "grant" for entry in lines) == 3 * 28
    assert verify(tmp_path) == {"node.log": len(lines)}
    assert examine(tmp_path, {"node.log": (0, "0" * 64)})[0].faults == []
    # The oldest moved away, and one of the middle.
    first = files[0].read_bytes()
    files[0].unlink()
    assert examine(tmp_path)[0].faults
    (checked,) = examine(tmp_path, archived=True)
    assert (checked.faults, checked.seq) == ([], len(lines))
    files[0].write_bytes(first)
    files[2].unlink()
    assert "missing between" in examine(tmp_path, archived=True)[0].faults[0]


@pytest.mark.parametrize("step", range(6))
def test_a_kill_while_a_file_is_put_aside_loses_nothing(tmp_path, monkeypatch, step):
    path = tmp_path / "node.log"
    log = Audit(path, rotate_bytes=1_000)
    calls = iter(range(100))

    def dying(function):
        def call(*args):
            if rotating and next(calls) == step:
                raise KeyboardInterrupt
            return function(*args)

        return call

    rotating = False
    for name in ("rename", "open", "write", "fdatasync", "pwrite", "fsync"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    put_aside = Audit._rotate

    def rotate(self):
        nonlocal rotating
        rotating = True
        put_aside(self)

    monkeypatch.setattr(Audit, "_rotate", rotate)

    def fill():
        for i in range(50):
            log.append("grant", {"track": str(i)})
            written.append(i)
            log.sync()

    written = []
    with pytest.raises(KeyboardInterrupt):
        fill()
    monkeypatch.undo()
    log._drop()
    filled(path, 3)
    assert examine(tmp_path)[0].faults == []
    assert sum(entry["kind"] == "grant" for entry in entries(path)) == len(written) + 1


def test_a_full_disk_where_the_log_is_to_go_on_without(tmp_path, monkeypatch):
    log = Audit(tmp_path / "node.log", go_on=True)

    def full(_fd, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for i in range(10_050):
        log.append("grant", {"n": i})
        if i % 1_000 == 0:
            log.sync()
    assert "No space left" in log.fault
    monkeypatch.undo()
    log.sync()
    assert log.fault is None
    log.append("grant", {"n": "last"})
    log.close()
    (checked,) = examine(tmp_path)
    assert checked.faults == []
    assert ["lines could not be written" in gap for gap in checked.gaps] == [True]
    lost = next(entry["lines"] for entry in entries(tmp_path / "node.log") if entry["kind"] == "lost")
    assert lost + checked.lines == 10_050 + 1 + 1


KILLED = """
import sys
from fusionnode.record.audit import Audit
log = Audit(sys.argv[1], rotate_bytes=20_000)
log.append("started", {})
n = 0
while True:
    for _ in range(7):
        log.append("grant", {"track": n})
        n += 1
    log.sync()
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def test_nothing_acknowledged_is_lost_by_a_kill_and_the_gap_is_told(tmp_path):
    path = tmp_path / "audit" / "group-x.log"
    rng = random.Random(5)
    promised = 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.15))
        process.kill()
        rest = process.stdout.read().split(b"\n")[:-1]
        process.wait()
        process.stdout.close()
        promised += int(rest[-1]) if rest else 7
        (checked,) = examine(path.parent)
        assert checked.faults == []
    grants = sum(entry["kind"] == "grant" for entry in entries(path))
    assert grants >= promised
    filled(path, 3)
    (checked,) = examine(path.parent)
    assert checked.faults == []
    assert sum("without a last word" in gap for gap in checked.gaps) == 6


def test_the_log_is_shown(tmp_path, capsys):
    filled(tmp_path / "group-allies.log")
    where = ["--directory", str(tmp_path)]
    assert main(["audit", "show", *where, "--log", "allies", "--track", "n-000003"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "grant" in line
    assert "rule=leo" in line
    assert main(["audit", "show", *where, "--kind", "grant", "--last", "2", "--json"]) == 0
    assert [json.loads(line)["track"] for line in capsys.readouterr().out.splitlines()] == [
        "n-000008",
        "n-000009",
    ]
    assert main(["audit", "show", *where, "--log", "nobody"]) == 2
    (tmp_path / "group-allies.log").write_bytes(b"")
    assert main(["audit", "verify", *where, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["faults"]
