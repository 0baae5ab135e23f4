"""A serial line: pyserial opens and configures it, plain reads on its descriptor do the rest.

A port that is absent, or has vanished, is ``PortError`` with a reason; the poller tries again.
"""

from __future__ import annotations

import contextlib
import os
import termios

import serial

READ_BYTES = 65_536

# pyserial wraps some faults of an unplugged port, and lets others through as they come.
_FAULTS = (serial.SerialException, OSError, termios.error, ValueError)


class PortError(Exception):
    """The link cannot be used now; the text says why, in a few words."""


class SerialPort:
    """An open port in raw mode, 8N1, no flow control.

    Naming it by ``/dev/serial/by-id/...`` makes it the same device after it was unplugged.

    Raises:
        PortError: absent, busy, not a serial device.
    """

    def __init__(self, device: str, baud: int) -> None:
        self.device = device
        try:
            # Modem lines that a pty does not have (ENOTTY) are tolerated by pyserial itself.
            self._port = serial.Serial(device, baud, timeout=0, write_timeout=0)
        except _FAULTS as error:
            raise PortError(_reason(error)) from None
        assert self._port.fd is not None  # it is open
        self.fd: int = self._port.fd

    def read(self) -> bytes:
        """What has come in; empty if nothing has.

        Raises:
            PortError: the port has vanished.
        """
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except _FAULTS as error:
            raise PortError(_reason(error)) from None
        if not data:
            raise PortError("hung up")
        return data

    def write(self, data: bytes) -> int:
        """Send without waiting; gives how many bytes the port took.

        Raises:
            PortError: the port has vanished.
        """
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except _FAULTS as error:
            raise PortError(_reason(error)) from None

    def close(self) -> None:
        """Give the port back; harmless if it has vanished."""
        with contextlib.suppress(*_FAULTS):
            self._port.close()


def _reason(error: Exception) -> str:
    """A few words, without the device's name, which the reader has already."""
    number = getattr(error, "errno", None)
    if number is None and error.args and isinstance(error.args[0], int):
        number = error.args[0]
    return os.strerror(number) if number else str(error).partition("\n")[0] or type(error).__name__
