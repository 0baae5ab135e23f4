"""The daemon's own chain in the audit log: what of its log lines tells who decided what is released."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusionnode.record.audit import Audit, AuditError

_TOLD = frozenset(
    ("reloaded", "reload_refused", "stopping", "fault", "group_fault", "state_restored", "partner_put_out")
)
_TOLD_BEGINNING = ("cue", "link_key")


class NodeLog:
    """Stands in for the daemon's log, and writes some of its lines into ``node.log`` as well.

    The groups' own logs stop a release that cannot be written down. This one never stops the node: what cannot be
    written waits, and that it waits is logged once.

    Args:
        path: the file.
        log: the daemon's.
        rotate_bytes: as for `Audit`.

    Raises:
        AuditError: the file cannot be opened, or another process has it.
    """

    def __init__(self, path: Path, log: Callable[..., None], *, rotate_bytes: int) -> None:
        self._log = log
        self._audit = Audit(path, rotate_bytes=rotate_bytes, go_on=True)
        self._lock = threading.Lock()  # both threads of the daemon log
        self._told: str | None = None

    def __call__(self, event: str, **fields: Any) -> None:
        """One line of the daemon's log."""
        self._log(event, **fields)
        if event in _TOLD or event.startswith(_TOLD_BEGINNING):
            self.note(event, fields)

    def note(self, kind: str, fields: dict[str, Any]) -> None:
        """One line of ``node.log`` only, on the disk when this returns."""
        plain = json.loads(json.dumps(fields, default=str))
        with self._lock:
            self._audit.append(
                kind, {f"{k}_" if k in ("seq", "time", "prev", "kind") else k: v for k, v in plain.items()}
            )
            self._audit.sync()
            fault, before, self._told = self._audit.fault, self._told, self._audit.fault
        if fault is not None and before is None:
            self._log("audit_fault", text=fault, consequence="lines wait in memory, then are lost")

    def close(self) -> None:
        """The last word; may be called twice."""
        with self._lock:
            try:
                if self._audit.open:
                    self._audit.append("stopped", {})
                self._audit.close()
            except AuditError as error:
                self._log("audit_fault", text=str(error))
