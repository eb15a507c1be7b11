"""Compile loops with numba: all cores, results kept on disk where there is a place for them.

Import this module where a kernel is used, not at the top: numba alone takes a second to import.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import numba

# Each kernel uses all cores by itself, and numba's fallback thread pool must not be entered by two threads at once.
_ONE_AT_A_TIME = threading.RLock()


def kernel_part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a small function that kernels of the same module call."""
    return numba.njit(function)


def parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop over `numba.prange` for all cores; calls from several threads take turns."""
    try:
        compiled = numba.njit(parallel=True, nogil=True, cache=True)(function)
    except RuntimeError:  # no folder to keep compiled code in
        compiled = numba.njit(parallel=True, nogil=True)(function)

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with _ONE_AT_A_TIME:
            return compiled(*args)

    return run
