"""Loops compiled by numba and run on all cores; compiled code is kept on disk where there is a place for it.

Import this module where a kernel is used, not at the top: numba alone takes a second to import.

Blocks run on plain threads that end with the call, not in numba's own parallel loops: those take several times as long
to compile, leave threads behind that do not survive a fork, and gave wrong numbers (numba 0.68) where a variable is set
in one branch only.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba


def kernel_part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a small function that kernels of the same module call; division by zero follows numpy."""
    return numba.njit(error_model="numpy")(function)


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a function of a block's number and further arguments, to be called with the number of blocks instead.

    The call runs all blocks, on as many threads as there are cores (or NUMBA_NUM_THREADS says). Blocks must not write
    to the same places.
    """
    try:
        compiled = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no folder to keep compiled code in
        compiled = numba.njit(nogil=True, error_model="numpy")(function)

    @functools.wraps(function)
    def run(blocks: int, *args: Any) -> None:
        threads = min(blocks, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        if threads <= 1:
            for block in range(blocks):
                compiled(block, *args)
            return
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda block: compiled(block, *args), range(blocks)):
                pass  # raises what a block raised

    return run
