"""Importing large packages faster. Knows no package."""

import contextlib
import gc
import importlib
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses garbage collection while a large package is imported: it makes a million objects, and they stay.

    Looking through them again and again is a fifth of the time that torch, transformers and MLflow take to import.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def imported(name: str) -> ModuleType:
    """The module of this name."""
    with collector_paused():
        return importlib.import_module(name)
