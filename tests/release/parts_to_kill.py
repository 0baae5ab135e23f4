"""What `test_killed_at_any_moment` kills: a node's end of a group's stream, and a subscriber. Run as processes."""

import itertools
import json
import os
import sys
import time
from pathlib import Path

from group_support import Grant

from conftest import states
from fusionnode.client import EpochChange, Filled, Gap, Heartbeat, State, Subscriber, Synced, Tombstone
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import Tombstone as Ended
from fusionnode.release.outlet import Outlet, OutletError
from fusionnode.release.settings import GroupSettings
from fusionnode.release.wire import StreamEncoder

T_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")


def node(folder, epoch, live, request):
    """Publish states, ends and heartbeats for ever, each granted before it goes."""
    settings = GroupSettings.from_json((folder / "settings.json").read_text())
    encoder = StreamEncoder(node_id="alpha", stream_epoch=epoch, sensor_names=["north", "south"])
    for _ in range(200):  # the addresses may still be held by the publisher of a life before
        outlet = Outlet(live=live, snapshot=request, group=settings)
        try:
            outlet.start()
            break
        except OutletError:
            time.sleep(0.05)
    (folder / f"pid-{epoch}").write_text(str(outlet.publisher_pid))
    for n in itertools.count():
        seq = encoder.seq
        batch = encoder.states(states(3, first=7 * n % 50))
        if n % 5 == 0:
            batch += encoder.tombstones([Ended(n % 50, T_NS, "dropped")])
        batch.append(encoder.heartbeat(T_NS, 0))
        outlet.send(batch, [Grant(f"alpha-{7 * n % 50 + k:06d}", "r", seq + 1) for k in range(3)])
        (folder / "publisher").write_text(str(outlet.publisher_pid))
        time.sleep(0.01)
        if (folder / "quiet").exists():
            while True:
                outlet.send([encoder.heartbeat(T_NS, 0)])
                time.sleep(0.1)


def made_up(event):
    """Whether it is not a message of the live stream or the history."""
    return getattr(event, "from_snapshot", False) or getattr(event, "reason", "") == "missed"


def client(folder, live, request):
    """Write down every event, then go on; where it stands is kept in a file."""
    log = os.open(folder / "heard", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    epoch = None
    keys = {"server_key": folder / "server.public", "secret_key_file": folder / "bravo.secret"}
    os.write(log, b'["life"]\n')
    with Subscriber(live, request, resume_file=folder / "place", request_timeout_s=1.0, **keys) as subscriber:
        while True:
            events = subscriber.receive(0.2)
            if epoch is None:
                epoch = next((e.old for e in events if isinstance(e, EpochChange)), subscriber.stream_epoch)
            lines = []
            for event in events:
                if isinstance(event, EpochChange):
                    lines.append(["epoch", event.old, event.new, event.complete])
                    epoch = event.new
                elif isinstance(event, Gap):
                    lines.append(["gap", epoch, event.seq, event.missed])
                elif isinstance(event, Synced):
                    lines.append(["synced", event.stream_epoch, event.seq, event.tracks])
                elif isinstance(event, Filled):
                    lines.append(["filled", event.stream_epoch, event.from_seq, event.to_seq])
                elif isinstance(event, (State, Tombstone, Heartbeat)) and not made_up(event):
                    lines.append(["message", epoch, event.seq])
            epoch = subscriber.stream_epoch
            # The event's record, in one piece: what comes after it is the next receive, which says it is dealt with.
            os.write(log, "".join(json.dumps(line) + "\n" for line in lines).encode())


if __name__ == "__main__":
    role, place, *more = sys.argv[1:]
    {"node": node, "client": client}[role](Path(place), *more)
