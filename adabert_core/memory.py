"""What glibc's allocator does with freed memory. Elsewhere than on glibc nothing is asked and nothing changes."""

import ctypes
import functools
import gc

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
