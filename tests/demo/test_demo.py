"""The demo itself, with all its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

DEMO = [sys.executable, "-m", "fusionnode", "demo", "--no-view"]


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def children(pid: int) -> list[tuple[int, str]]:
    """Process ids and command lines of all descendants."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if parent == pid:
            found += [(int(folder.name), words), *children(int(folder.name))]
    return found


def wait_for_children(demo: subprocess.Popen[str], n: int) -> list[tuple[int, str]]:
    end = time.monotonic() + 60.0
    while len(found := children(demo.pid)) < n:
        assert time.monotonic() < end, found
        assert demo.poll() is None
        time.sleep(0.1)
    return found


def gone(pids: list[int]) -> bool:
    end = time.monotonic() + 20.0
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_a_short_demo_holds_and_its_books_balance(tmp_path: Path) -> None:
    picture, kept = tmp_path / "view.svg", tmp_path / "kept"
    demo = start("--duration", "12", "--json", "--picture", str(picture), "--keep", str(kept))
    out, err = demo.communicate(timeout=280)
    assert demo.returncode == 0, out + err
    summary = json.loads(out.splitlines()[-1])
    assert summary["held"] is True
    assert summary["failures"] == []
    for counts in summary["sensors"].values():
        assert counts["in"] == sum(n for key, n in counts.items() if key != "in") > 0
    tracks = summary["tracks"]
    assert tracks["objects_held"] == tracks["objects_trackable"] >= 5
    assert (tracks["false"], tracks["uncorrelated"]) == (0, 1)
    assert tracks["objects_fused"] >= 1
    assert summary["replay"]["sha256"] == summary["stream"]["sha256"]
    assert picture.read_text().startswith("<svg")
    # What was kept can be replayed by hand.
    again = subprocess.run(
        [
            sys.executable,
            "-m",
            "fusionnode",
            "replay",
            kept / "journal",
            "--config",
            kept / "station.toml",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(again.stdout)["sha256"] == summary["stream"]["sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    demo = start(env={**os.environ, "TMPDIR": str(tmp_path)})
    pids = [pid for pid, _ in wait_for_children(demo, 4)]  # node, publisher, two emulators
    demo.send_signal(number)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert err.splitlines() == ["fusionnode: demo: interrupted; everything has ended"]
    assert gone(pids)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_demo_that_is_killed_takes_its_processes_with_it() -> None:
    # Its files it cannot take with it; a short name, so that the sockets are there, too.
    with tempfile.TemporaryDirectory() as folder:
        demo = start(env={**os.environ, "TMPDIR": folder})
        pids = [pid for pid, _ in wait_for_children(demo, 4)]
        demo.kill()
        demo.communicate(timeout=60)
        assert gone(pids)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["node", "radar"])
def test_a_process_that_dies_ends_the_demo_with_one_line(name: str) -> None:
    demo = start()
    found = wait_for_children(demo, 4)
    word = {"node": " run ", "radar": "radar.toml"}[name]
    os.kill(next(pid for pid, words in found if word in words), signal.SIGKILL)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert len(err.splitlines()) == 1
    assert f"the {name} ended by itself (SIGKILL)" in err
    assert gone([pid for pid, _ in found])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--duration", "0"], "--duration: expected 8 to 300"),
        (["--seed", "-1"], "--seed"),
        (["--picture", "no/such/folder/x.svg"], "there is no folder"),
        (["--keep", "/dev/null"], "expected a new or empty folder"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(arguments: list[str], words: str) -> None:
    done = subprocess.run([*DEMO, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
