"""The demo's child processes: they end when it ends, however that comes about."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_STOP_S: Final = 12.0


class DemoError(Exception):
    """The demo cannot go on; the text is one line for the user."""


class Child:
    """One ``fusionnode`` command in a process of its own; what it says goes to files in ``folder``."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.name = name
        self._out, self._log = folder / f"{name}.out", folder / f"{name}.log"
        with self._out.open("wb") as out, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fusionnode", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which ends them in order
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def check(self) -> None:
        """Nothing, as long as it runs.

        Raises:
            DemoError: it has ended; with its last words.
        """
        code = self._process.poll()
        if code is not None:
            raise DemoError(f"the {self.name} ended by itself ({_how(code)}){self._last_words()}")

    def log_events(self) -> list[dict[str, Any]]:
        """The log so far, for commands that log JSON lines."""
        events = []
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    events.append(event)
        return events

    def said(self) -> str:
        """Standard output so far."""
        return self._out.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Ask it to end; `wait` waits for that."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, timeout_s: float = _STOP_S) -> int:
        """Its exit code; killed if it takes longer."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def result(self) -> dict[str, Any]:
        """The JSON object it ended with.

        Raises:
            DemoError: it ended badly, or without one.
        """
        code = self.wait()
        lines = self.said().splitlines()
        with suppress(ValueError, IndexError):
            result = json.loads(lines[-1])
            if code == 0 and isinstance(result, dict):
                return result
        raise DemoError(f"the {self.name} ended badly ({_how(code)}){self._last_words()}")

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return f": {lines[-1].removeprefix('fusionnode: ')}" if lines else ""


def stop_all(children: Sequence[Child]) -> None:
    """End what still runs, the first ones first."""
    for child in children:
        child.stop()
    end = time.monotonic() + _STOP_S
    for child in children:
        child.wait(max(end - time.monotonic(), 0.1))


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """In the child: end when the demo is gone, even if it was killed (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
