"""What is freed is kept for the next step and given back after a stage, where there is a glibc to ask."""

import platform
import subprocess
import sys

import pytest

from adabert_core import memory

RESIDENT = """
from pathlib import Path
from adabert_core.memory import give_memory_back, keep_freed_memory

def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if {kept}:
    keep_freed_memory()
before = resident()
block = bytearray(64 * 2**20)
del block
freed = resident()
give_memory_back()
print(freed - before, resident() - before)
"""


def megabytes_left(kept: bool) -> list[float]:
    """What a freed block of 64 MB leaves resident, before and after memory is given back; in a process of its own."""
    result = subprocess.run([sys.executable, "-c", RESIDENT.format(kept=kept)], capture_output=True, text=True, check=True)
    return [float(word) for word in result.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc here")
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    freed, given_back = megabytes_left(kept=True)
    assert freed > 60
    assert given_back < 5
    assert megabytes_left(kept=False)[0] < 5


def test_nothing_is_asked_where_there_is_no_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())  # a C library without mallopt, musl's for one
    memory.keep_freed_memory.cache_clear()
    memory.keep_freed_memory()
    memory.give_memory_back()
    memory.keep_freed_memory.cache_clear()
