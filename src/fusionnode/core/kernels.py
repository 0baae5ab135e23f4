"""How the hot loops are compiled: one decorator, and a cache that cannot be stale.

numba notices a change in the file a kernel stands in, not in the files it calls into. So the cache folder
carries a fingerprint of all files with kernels, and of the constants they use: another version, or an edited
kernel, compiles anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numba

Function = Callable[..., Any]
"""Kernels are typed by numba, at the call; what they take stands in their docstrings."""


def _fingerprint() -> str:
    """Of the sources of all modules with kernels, and of ``core``, whose constants kernels hold."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        text = path.read_bytes()
        if path.parent.name == "core" or b"fusionnode.core.kernels" in text:
            digest.update(f"{path.relative_to(root)}|{len(text)}\n".encode() + text)
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``$NUMBA_CACHE_DIR``, else the user's cache folder."""
    configured = os.environ.get("NUMBA_CACHE_DIR")
    if configured:
        return Path(configured)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fusionnode" / "kernels" / _fingerprint()


setattr(numba.config, "CACHE_DIR", str(cache_folder()))  # noqa: B010 - numba fills this module at run time


def kernel(function: Function) -> Function:
    """Compile a hot loop: cached on disk, without the interpreter's lock, IEEE arithmetic (no fastmath)."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def inlined(function: Function) -> Function:
    """Compile a formula that is always written out where it is used."""
    return cast(Function, numba.njit(inline="always", nogil=True, error_model="numpy")(function))
