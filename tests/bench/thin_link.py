"""Two ways to follow a release group over the same thin link, in one run: how old is what the subscriber holds?

    python tests/bench/thin_link.py [--seconds 100] [--cut-s 600] [--states-s 100] [--rate-bit-s 64000] [--delay-ms 300]
        [--loss 0.05]

A node's publisher (CURVE) sends states of as many tracks as states come in a second, each once a second. A plain SUB
socket at the XPUB, and the client in the paced mode, follow it, each through a relay of its own
(`fusionnode_hil.relay`: rate, delay, losses as retransmission delay) with the same numbers and the same seed. Node and
subscribers live in two network namespaces where the kernel allows that. Printed are p50 and p95 of the age of a state
when it comes, and of the newest state held of each track, looked at twice a second, from 10 s on.

With ``--cut-s`` both links are then cut; tracks end and begin meanwhile. After that nothing new happens, and it is
printed after how long the paced picture equals what the node releases.
"""

from __future__ import annotations

import argparse
import calendar
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq

from fusionnode.client import State, Subscriber
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import TRACK_STATE, Status
from fusionnode.core.types import Tombstone as Ended
from fusionnode.release.outlet import Outlet
from fusionnode.release.settings import GroupSettings, Partner
from fusionnode.release.wire import StreamEncoder
from fusionnode.security.keyring import Keyring, Pair, server_name
from fusionnode.security.zap import unlock

NODE_IP, FAR_IP = "10.213.7.1", "10.213.7.2"
LIVE, REQUEST = 5610, 5611
KINDS = ("plain", "paced")
FIRST_PORT = 6610
_SETTLE_S = 10.0
_AFTER_S = 120.0
_KNOWN_NS = (
    tai_ns_from_utc_text("2026-03-01T12:00:00Z") - calendar.timegm((2026, 3, 1, 12, 0, 0)) * 1_000_000_000
)


def main() -> int:
    """Run one of the roles; without one, all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--cut-s", type=float, default=0.0)
    parser.add_argument("--states-s", type=int, default=100)
    parser.add_argument("--rate-bit-s", type=float, default=64_000.0)
    parser.add_argument("--delay-ms", type=float, default=300.0)
    parser.add_argument("--loss", type=float, default=0.05)
    parser.add_argument("--pace", type=int, default=6_800, help="bytes a second that the paced mode asks for")
    parser.add_argument("--role", choices=("node", *KINDS))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--address", default="127.0.0.1")
    args = parser.parse_args()
    if args.role == "node":
        return node(args)
    if args.role is not None:
        return follow(args)
    return everything(args)


def everything(args: argparse.Namespace) -> int:
    """Start the node and the subscribers, and print what they say."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, namespaces() as (here, there, address, why):
        print(f"node and subscribers: {why}", flush=True)
        args.folder, args.address = Path(folder), address
        own = [sys.executable, __file__, "--folder", folder, "--address", address]
        for name in ("seconds", "cut_s", "states_s", "rate_bit_s", "delay_ms", "loss", "pace"):
            own += ["--" + name.replace("_", "-"), str(getattr(args, name))]
        make_keys(args.folder)
        with subprocess.Popen([*here, *own, "--role", "node"]) as process:
            wait_for(args.folder / "ready", 60)
            readers = {
                kind: subprocess.Popen([*there, *own, "--role", kind], stdout=subprocess.PIPE, text=True)
                for kind in KINDS
            }
            said = {kind: json.loads(reader.communicate()[0] or "{}") for kind, reader in readers.items()}
            (args.folder / "done").touch()
            process.wait()
    for kind, result in said.items():
        print(kind, json.dumps(result), flush=True)
    return 0


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[list[str], list[str], str, str]]:
    """How to start something in either of two networks, the node's address, and in words."""
    names = [f"fusionnode-{os.getpid()}-{side}" for side in ("node", "far")]
    made: list[str] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("-n", names[0], "link", "add", "fn0", "type", "veth", "peer", "name", "fn1", "netns", names[1])
        for name, device, address in zip(names, ("fn0", "fn1"), (NODE_IP, FAR_IP), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
        here, there = (["ip", "netns", "exec", name] for name in names)
        found = (here, there, NODE_IP, "two network namespaces")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        found = ([], [], "127.0.0.1", f"one network, as namespaces are not to be had ({reason.strip()})")
    try:
        yield found
    finally:
        for name in made:
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                ip("netns", "del", name)


def ip(*words: str) -> None:
    """The command of that name."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def make_keys(folder: Path) -> None:
    """Of the group and of a partner for each way."""
    keys = Keyring(folder / "keys")
    public = keys.new(server_name("far"))
    assert public is not None
    (folder / "server.public").write_bytes(public + b"\n")
    for kind in KINDS:
        pair = Pair(*zmq.curve_keypair())
        (folder / f"{kind}.public").write_bytes(pair.public + b"\n")
        keys.allow("far", kind, folder / f"{kind}.public")
        secret = folder / f"{kind}.secret"
        secret.touch(0o600)
        secret.write_bytes(pair.secret + b"\n")


def wait_for(path: Path, seconds: float) -> None:
    """Until a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path.name} never came")
        time.sleep(0.02)


class Relay:
    """A relay process for one subscriber, to be commanded."""

    def __init__(self, args: argparse.Namespace, kind: str) -> None:
        live, request = ports(kind)
        command = [sys.executable, "-m", "fusionnode_hil.relay", "--seed", "7"]
        for outside, inside in ((live, LIVE), (request, REQUEST)):
            command += ["--route", f"{args.address}:{outside}=127.0.0.1:{inside}"]
        command += [
            "--rate-bit-s",
            str(args.rate_bit_s),
            "--delay-ms",
            str(args.delay_ms),
            "--loss",
            str(args.loss),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def say(self, what: str) -> None:
        """One command."""
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()

    def close(self) -> str:
        """End it; gives its counts."""
        return self._process.communicate("quit\n", timeout=10)[0].strip()


def ports(kind: str) -> tuple[int, int]:
    """Of a subscriber's relay: stream, requests."""
    first = FIRST_PORT + 2 * KINDS.index(kind)
    return first, first + 1


def tai_now_ns() -> int:
    """Node's time; the leap seconds of 2017 and after."""
    return time.time_ns() + _KNOWN_NS


def node(args: argparse.Namespace) -> int:
    """Publish, cut, heal, and say what is released in the end."""
    rng = np.random.default_rng(3)
    n = args.states_s
    encoder = StreamEncoder(node_id="station", stream_epoch="station-1", sensor_names=["north", "south"])
    group = GroupSettings(
        "far", "station", str(args.folder / "keys"), str(args.folder / "far.log"),
        partners={kind: Partner() for kind in KINDS},
    )  # fmt: skip
    relays = [Relay(args, kind) for kind in KINDS]
    states = np.zeros(n, TRACK_STATE)
    states["track"] = np.arange(n)
    states["object"], states["sensors"], states["status"] = -1, 3, Status.CONFIRMED
    states["dof"], states["updates"], states["existence"] = 4, 400, 0.9999
    a = rng.normal(size=(n, 6, 6)) * np.repeat([20.0, 0.03], 3)[:, None]
    states["P"] = a @ a.transpose(0, 2, 1)
    where = rng.normal(size=(2, n, 3))
    radius, rate = 7.2e6, 1.03e-3
    u = where[0] / np.linalg.norm(where[0], axis=1)[:, None]
    w = np.cross(u, where[1])
    w /= np.linalg.norm(w, axis=1)[:, None]
    live, snapshot = f"tcp://127.0.0.1:{LIVE}", f"tcp://127.0.0.1:{REQUEST}"
    with Outlet(live=live, snapshot=snapshot, group=group) as outlet:
        outlet.start()
        outlet.send([encoder.heartbeat(tai_now_ns(), n)])
        (args.folder / "ready").touch()
        begun, k, next_track, cut_at, heal_at = (
            time.monotonic(),
            0,
            n,
            args.seconds,
            args.seconds + args.cut_s,
        )
        cut = healed = False
        while not (args.folder / "done").exists():
            time.sleep(max(0.0, begun + k / n - time.monotonic()))
            now = time.monotonic() - begun
            if args.cut_s and not cut and now >= cut_at:
                cut = True
                for relay in relays:
                    relay.say("cut")
            if cut and not healed and now >= heal_at:
                healed = True
                for relay in relays:
                    relay.say("heal")
                (args.folder / "truth.tmp").write_text(json.dumps(held(outlet)))
                (args.folder / "truth.tmp").rename(args.folder / "truth")
            t, row = tai_now_ns(), k % n
            if not healed:
                if cut and k % (3 * n) == 0:
                    outlet.send(encoder.tombstones([Ended(int(states["track"][row]), t, "dropped")]))
                    states["track"][row] = next_track
                    next_track += 1
                angle = rate * (t % 10**15) / 1e9 + row
                states["epoch_ns"][row] = states["last_ob_ns"][row] = t
                states["x"][row, :3] = radius * (np.cos(angle) * u[row] + np.sin(angle) * w[row])
                states["x"][row, 3:] = radius * rate * (np.cos(angle) * w[row] - np.sin(angle) * u[row])
                states["nis"][row] = rng.chisquare(4)
                outlet.send(encoder.states(states[row : row + 1]))
            if row == 0:
                outlet.send([encoder.heartbeat(t, n)])
            k += 1
    print("relays", *(relay.close() for relay in relays), flush=True)
    return 0


def held(outlet: Outlet) -> dict[str, str]:
    """Epoch of each track's newest state, as the group is released it."""
    newest = outlet._cache.newest  # what a snapshot would be made of
    bodies = (msgpack.unpackb(payload) for topic, payload in newest.items() if topic.startswith(b"state."))
    return {body["trackId"]: body["epoch"] for body in bodies}


class Ages:
    """Ages of states when they come and while they are held."""

    def __init__(self) -> None:
        self.coming: list[float] = []
        self.holding: list[float] = []
        self.begun = time.monotonic()
        self._look_at = self.begun + _SETTLE_S

    def came(self, epoch: str) -> None:
        """A state."""
        if time.monotonic() > self.begun + _SETTLE_S:
            self.coming.append(age_s(epoch))

    def look(self, epochs: Callable[[], list[str]]) -> None:
        """Twice a second: at all that is held."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + 0.5
            self.holding += [age_s(epoch) for epoch in epochs()]

    def result(self) -> dict[str, Any]:
        """p50 and p95 of both, seconds."""
        out: dict[str, Any] = {"states": len(self.coming)}
        for name, ages in (("age when it comes", self.coming), ("age of what is held", self.holding)):
            if ages:
                out[name] = [round(float(p), 1) for p in np.percentile(ages, [50, 95])]
        return out


def age_s(epoch: str) -> float:
    """Seconds since a time."""
    whole = calendar.timegm(time.strptime(epoch[:19], "%Y-%m-%dT%H:%M:%S"))
    return time.time() - whole - float(epoch[19:-1])


def follow(args: argparse.Namespace) -> int:
    """One subscriber."""
    live, request = (f"tcp://{args.address}:{port}" for port in ports(args.role))
    ages = Ages()
    if args.role == "plain":
        result = plain(args, live, ages)
    else:
        keys: dict[str, Any] = {
            "server_key": args.folder / "server.public",
            "secret_key_file": args.folder / f"{args.role}.secret",
        }
        with Subscriber(None, request, paced_bytes_per_s=args.pace, **keys) as subscriber:
            result = client(args, subscriber, ages)
    print(json.dumps(result))
    return 0


def plain(args: argparse.Namespace, live: str, ages: Ages) -> dict[str, Any]:
    """A SUB socket, with the XPUB's defaults."""
    epochs: dict[str, str] = {}
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        secret = (args.folder / "plain.secret").read_bytes().strip()
        server = (args.folder / "server.public").read_bytes().strip()
        unlock(sub, server, Pair(zmq.curve_public(secret), secret))
        sub.connect(live)
        sub.subscribe(b"state.")
        while time.monotonic() < ages.begun + args.seconds:
            if sub.poll(100):
                body = msgpack.unpackb(sub.recv_multipart()[1])
                epochs[body["trackId"]] = body["epoch"]
                ages.came(body["epoch"])
            ages.look(lambda: list(epochs.values()))
        sub.close(linger=0)
    return ages.result()


def client(args: argparse.Namespace, subscriber: Subscriber, ages: Ages) -> dict[str, Any]:
    """The project's own in the paced mode, through a cut too."""
    while time.monotonic() < ages.begun + args.seconds:
        for event in subscriber.receive(0.1):
            if isinstance(event, State):
                ages.came(event.state["epoch"])
        ages.look(lambda: [state["epoch"] for state in subscriber.picture.values()])
    result = ages.result()
    if not args.cut_s:
        return result
    truth_file = args.folder / "truth"
    while not truth_file.exists():
        subscriber.receive(0.2)
    healed, truth = time.monotonic(), json.loads(truth_file.read_text())
    result["tracks"] = len(truth)
    while time.monotonic() < healed + _AFTER_S:
        if {track: state["epoch"] for track, state in subscriber.picture.items()} == truth:
            result["equal after heal, s"] = round(time.monotonic() - healed, 1)
            break
        subscriber.receive(0.2)
    else:
        mine = {track: state["epoch"] for track, state in subscriber.picture.items()}
        result["not equal"] = [len(mine), sum(mine.get(track) != epoch for track, epoch in truth.items())]
    result["counts"] = subscriber.counts
    return result


if __name__ == "__main__":
    sys.exit(main())
