"""Memory of this process: how much, and what glibc's allocator does with what is freed (no other is asked)."""

import contextlib
import ctypes
import functools
import gc
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


@functools.cache
def keep_freed_memory() -> None:
    """Has glibc keep large blocks: given back to the kernel they come again at every step, page by page (docs/LOG.md)."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_memory_back() -> None:
    """Has glibc give the kernel what is free now: after a stage, so that the next one begins with little."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def status_bytes(field: str) -> int:
    """What the kernel says of this process: VmRSS is its memory now, VmHWM the most so far; 0 where it does not say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024
    return 0
