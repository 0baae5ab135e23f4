"""Real links, from the sensor's end: a pseudo-terminal, a serial device, a ZeroMQ PUSH socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import termios
import threading
import time
import tty
from pathlib import Path
from typing import Protocol

import serial
import zmq

from fusionnode_hil.config import LinkConfig, PtyLinkConfig, SerialLinkConfig
from fusionnode_hil.stop import Stop

BITS_PER_BYTE = 10
"""8 data bits, start and stop."""

CHUNK = 32
"""Bytes handed over at once on a paced line: what a UART's FIFO would gather."""

SLICE_S = 0.1
"""How soon a wait notices that it has to stop."""

LAST_WAIT_S = 0.5
"""How long what was already sent may still take to arrive once told to stop."""


class LinkError(Exception):
    """The link cannot be set up; the text is one line."""


class Link(Protocol):
    """What an emulated sensor writes to and hears from."""

    dropped_bytes: int  # written while nobody was there to read

    @property
    def description(self) -> str:
        """For people."""
        ...

    def write(self, data: bytes) -> None:
        """Send one message's bytes; waits for the line, drops them if there is no reader."""
        ...

    def read(self) -> bytes:
        """What came from the node since, or nothing; never waits."""
        ...

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until somebody reads; False if nobody came."""
        ...

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything written was taken by the reader; False if it was not."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Deadline:
    """The end of a wait: after ``seconds``, or ``grace_s`` after ``stop`` was set, if that is earlier."""

    def __init__(self, seconds: float, stop: Stop | None, grace_s: float = 0.0) -> None:
        self._end = time.monotonic() + seconds
        self._stop = stop
        self._grace_s = grace_s

    def passed(self) -> bool:
        """Whether to give up."""
        now = time.monotonic()
        if self._stop is not None and self._stop.is_set():
            self._end = min(self._end, now + self._grace_s)
        return now >= self._end

    def slice_s(self) -> float:
        """How long to wait before looking again."""
        return max(0.0, min(SLICE_S, self._end - time.monotonic()))


class Pace:
    """A line's baud rate on an absolute schedule: errors of single sleeps do not add up."""

    def __init__(self, baud: int | None) -> None:
        self._byte_s = BITS_PER_BYTE / baud if baud else 0.0
        self._free = 0.0

    @property
    def unlimited(self) -> bool:
        """Whether there is no rate to keep."""
        return not self._byte_s

    def chunks(self, data: bytes) -> list[bytes]:
        """``data`` in the pieces that `wait` is called for."""
        if not self._byte_s:
            return [data]
        return [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]

    def wait(self, n: int) -> None:
        """Return when the last of ``n`` further bytes has passed the line."""
        if not self._byte_s:
            return
        now = time.monotonic()
        self._free = max(self._free, now) + n * self._byte_s
        if self._free > now:
            time.sleep(self._free - now)


class PtyLink:
    """A pseudo-terminal pair. The emulator holds the master; the reader opens the slave, found at a symlink.

    As on a real line, what is sent while nobody has the port open, or takes what is there, is lost; it is
    counted. `plug` and `unplug` may be called while another thread writes.
    """

    def __init__(
        self,
        path: str | Path,
        baud: int | None = None,
        *,
        stall_s: float = 1.0,
        stop: Stop | None = None,
    ) -> None:
        """``stall_s``: how long a write waits for a reader that does not read. ``stop`` ends every wait.

        Raises:
            LinkError: if the symlink cannot be made.
        """
        self.path = Path(path)
        self._stall_s = stall_s
        self._stop = stop
        self._lock = threading.RLock()
        self.dropped_bytes = 0
        self._pace = Pace(baud)
        self.paced = not self._pace.unlimited
        self._master = -1
        self.slave_name = ""
        self.plug()

    @property
    def description(self) -> str:
        """For people."""
        return f"pty {self.path} -> {self.slave_name or 'unplugged'}"

    def plug(self) -> None:
        """Make a new pair and point the symlink at it.

        Raises:
            LinkError: if the symlink cannot be made.
        """
        with self._lock:
            if self._master < 0:
                self._make()

    def _make(self) -> None:
        master, slave = os.openpty()
        tty.setraw(slave)  # no echo, no line editing, whoever opens it
        self.slave_name = os.ttyname(slave)
        os.close(slave)  # a closed slave is how the master knows that there is no reader
        os.set_blocking(master, False)
        self._master = master
        try:
            self._need_folder()
            if self.path.exists() and not self.path.is_symlink():
                raise LinkError(f"{self.path}: exists and is not a symbolic link")
            fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.slave_name)
            fresh.replace(self.path)  # in one step: a reader never finds it missing in between
        except OSError as error:
            self.unplug()
            raise LinkError(f"{self.path}: cannot make the link: {error.strerror}") from None
        except LinkError:
            self.unplug()
            raise

    def _need_folder(self) -> None:
        """One folder inside of the working folder (``run/``) is made; any other is the user's to make."""
        folder = self.path.parent
        if len(folder.parts) == 1 and not folder.is_absolute() and folder.name != "..":
            folder.mkdir(exist_ok=True)
        if not folder.is_dir():
            raise LinkError(f"{self.path}: there is no folder {folder}")

    def unplug(self) -> None:
        """Take the device away: readers see a hang-up, the symlink is gone."""
        with self._lock:
            if self._master < 0:
                return
            if self.path.is_symlink() and str(self.path.readlink()) == self.slave_name:
                self.path.unlink(missing_ok=True)
            os.close(self._master)
            self._master, self.slave_name = -1, ""

    def has_reader(self) -> bool:
        """Whether the slave is open somewhere."""
        with self._lock:
            if self._master < 0:
                return False
            poll = select.poll()
            poll.register(self._master, 0)
            return not any(event & select.POLLHUP for _, event in poll.poll(0))

    def write(self, data: bytes) -> None:
        """See `Link.write`."""
        for piece in self._pace.chunks(data):
            self._pace.wait(len(piece))
            self._write_now(memoryview(piece))

    def _write_now(self, data: memoryview) -> None:
        stalled: Deadline | None = None
        while data:
            taken = self._take(data)
            data = data[taken:]
            if taken:
                stalled = None
                continue
            stalled = stalled or Deadline(self._stall_s, self._stop)
            if not self.has_reader() or stalled.passed():
                self.dropped_bytes += len(data)
                return
            time.sleep(0.001)

    def _take(self, data: memoryview) -> int:
        """Bytes that the pty had room for; 0 without a reader."""
        with self._lock:
            if not self.has_reader():
                return 0
            try:
                return os.write(self._master, data)
            except OSError:  # full, or the reader went away just now
                return 0

    def read(self) -> bytes:
        """See `Link.read`."""
        with self._lock:
            if not self.has_reader():
                return b""
            try:
                return os.read(self._master, 4096)
            except OSError:  # nothing there, or the reader went away just now
                return b""

    def wait_ready(self, timeout_s: float) -> bool:
        """See `Link.wait_ready`. Opening a tty discards what was sent before, so this comes first."""
        end = Deadline(timeout_s, self._stop)
        while not self.has_reader():
            if end.passed():
                return False
            time.sleep(0.01)
        time.sleep(0.2)  # the reader may still be setting its port up, and flush it
        return self.has_reader()

    def drain(self, timeout_s: float) -> bool:
        """See `Link.drain`. A master that closes takes unread bytes with it, so this comes before closing."""
        end = Deadline(timeout_s, self._stop, LAST_WAIT_S)
        if not self.has_reader():
            return False
        probe = os.open(self.slave_name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            quiet = 0
            while quiet < 5:  # the kernel passes bytes on to the slave's side with a delay
                waiting = struct.unpack("i", fcntl.ioctl(probe, termios.FIONREAD, b"\0" * 4))[0]
                quiet = 0 if waiting else quiet + 1
                if end.passed():
                    return False
                time.sleep(0.01)
            return True
        finally:
            os.close(probe)

    def close(self) -> None:
        """See `Link.close`."""
        self.unplug()


class SerialLink:
    """A named serial device, at its own pace."""

    def __init__(self, device: str, baud: int) -> None:
        self.description = f"serial {device} at {baud} baud"
        self.dropped_bytes = 0
        try:
            self._port = serial.Serial(device, baud, timeout=0, exclusive=True)
        except (OSError, ValueError) as error:  # pyserial's own error is an OSError
            raise LinkError(f"{device}: cannot be opened: {_plain(error)}") from None

    def write(self, data: bytes) -> None:
        """See `Link.write`."""
        try:
            self._port.write(data)
        except (OSError, termios.error):
            self.dropped_bytes += len(data)

    def read(self) -> bytes:
        """See `Link.read`."""
        try:
            return bytes(self._port.read(4096))
        except (OSError, termios.error):
            return b""

    def wait_ready(self, timeout_s: float) -> bool:
        """True: a serial line does not tell."""
        return True

    def drain(self, timeout_s: float) -> bool:
        """See `Link.drain`; as far as this computer's own buffers."""
        with contextlib.suppress(OSError, termios.error):
            self._port.flush()
        return True

    def close(self) -> None:
        """See `Link.close`."""
        with contextlib.suppress(OSError, termios.error):
            self._port.close()


class ZmqLink:
    """A ZeroMQ PUSH socket; nothing comes back over it."""

    def __init__(
        self,
        endpoint: str,
        *,
        bind: bool = False,
        high_water_mark: int = 1_000,
        wait_s: float = 1.0,
        stop: Stop | None = None,
    ) -> None:
        """``wait_s``: how long a write waits for room before its message is dropped. ``stop`` ends every wait.

        Raises:
            LinkError: if the endpoint cannot be used.
        """
        self.description = f"zmq PUSH {'bound at' if bind else 'to'} {endpoint}"
        self.dropped_bytes = 0
        self._wait_s = wait_s
        self._stop = stop
        self._stalled = False
        self._linger_s = 1.0
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, high_water_mark)
        # A socket that connects takes messages before anybody is there; a handshake is how it knows.
        self._handshakes = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        try:
            if bind:
                self._socket.bind(endpoint)
                self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
            else:
                self._socket.connect(endpoint)
                self.endpoint = endpoint
        except zmq.ZMQError as error:
            self._context.destroy(0)
            raise LinkError(f"{endpoint}: {zmq.strerror(error.errno or 0)}") from None

    def write(self, data: bytes) -> None:
        """See `Link.write`. Of messages that find no room one after the other, only the first waits."""
        end = Deadline(0.0 if self._stalled else self._wait_s, self._stop)
        while True:
            try:
                self._socket.send(data, zmq.NOBLOCK)
            except zmq.Again:
                if end.passed():
                    self._stalled = True
                    self.dropped_bytes += len(data)
                    return
                self._socket.poll(round(end.slice_s() * 1e3), zmq.POLLOUT)
            else:
                self._stalled = False
                return

    def read(self) -> bytes:
        """Always nothing."""
        return b""

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until a PULL socket has shaken hands; a listener that is none, or silent, does not count."""
        end = Deadline(timeout_s, self._stop)
        while not self._handshakes.poll(round(end.slice_s() * 1e3)):
            if end.passed():
                return False
        return True

    def drain(self, timeout_s: float) -> bool:
        """True: it is `close` that waits."""
        self._linger_s = timeout_s
        return True

    def close(self) -> None:
        """See `Link.close`; waits for what is still on its way, at most as long as `drain` said."""
        self._socket.disable_monitor()
        self._handshakes.close(0)
        self._socket.close(linger=round(self._linger_s * 1e3))
        # Only the end of the context tells that all has left, and it cannot be interrupted.
        ending = threading.Thread(target=self._context.term, daemon=True)
        ending.start()
        end = Deadline(self._linger_s + 1.0, self._stop, LAST_WAIT_S)
        while ending.is_alive() and not end.passed():
            ending.join(SLICE_S)


def open_link(config: LinkConfig, stop: Stop | None = None) -> Link:
    """The link a configuration names; ``stop`` ends its waits.

    Raises:
        LinkError: one line.
    """
    if isinstance(config, PtyLinkConfig):
        return PtyLink(config.path, config.baud, stop=stop)
    if isinstance(config, SerialLinkConfig):
        return SerialLink(config.device, config.baud)
    return ZmqLink(config.endpoint, bind=config.bind, high_water_mark=config.high_water_mark, stop=stop)


def _plain(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)
