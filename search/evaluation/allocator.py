"""Memory that a process keeps for its next pass instead of giving it back.

The C library gives large blocks back to the system as soon as they are free, and takes them anew, page by page, at the
next pass. Whether it does depends on what the process did before: the same network took 27 ms, or 46 to 63 with 10,000
page faults a pass, from one process to the next (docs/log.md). Serving programs keep their memory; so does whatever
measures or trains here.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Names of glibc's `mallopt(3)`."""
TOP_PAD = 64 * 2**20
NEVER_TRIM = 2**31 - 1


@cache
def keep_memory() -> bool:
    """Have this process keep what it frees, from now on; return whether its C library can (glibc)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_TRIM_THRESHOLD, NEVER_TRIM), (M_TOP_PAD, TOP_PAD), (M_MMAP_MAX, 0))
    return all(mallopt(name, value) for name, value in settings)
