"""Loops compiled by numba and run on all cores; compiled code is kept on disk where there is a place for it.

Import this module where a kernel is used, not at the top: numba alone takes a second to import.

Blocks run on plain threads that end with the call, not in numba's own parallel loops: those take several times as long
to compile, leave threads behind that do not survive a fork, and gave wrong numbers (numba 0.68) where a variable is set
in one branch only.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any

import numba

from darts_utils.threads import on_all_cores


def kernel_part(function: Callable[..., Any] | None = None, *, fastmath: Collection[str] = ()) -> Callable[..., Any]:
    """Compile a small function that kernels of the same module call; division by zero follows numpy.

    `fastmath` names what LLVM may do with sums and products besides; without it, nothing.
    """
    if function is None:
        return functools.partial(kernel_part, fastmath=fastmath)
    return numba.njit(error_model="numpy", fastmath=set(fastmath) or False)(function)


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a function of a block's number and further arguments, to be called with the number of blocks instead.

    The call runs all blocks on all cores (`darts_utils.threads`). Blocks must not write to the same places.
    """
    try:
        compiled = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no folder to keep compiled code in
        compiled = numba.njit(nogil=True, error_model="numpy")(function)

    @functools.wraps(function)
    def run(blocks: int, *args: Any) -> None:
        on_all_cores(lambda block: compiled(block, *args), range(blocks))

    return run
