"""What a command raises when it cannot do what it was asked."""

from __future__ import annotations


class CommandError(Exception):
    """The command cannot go on; the text is one line for the user, the exit code is 2."""
