"""Importing large packages faster, and missing them early. Knows no package."""

import contextlib
import gc
import importlib
import importlib.util
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


def needed(*packages: str) -> None:
    """Says which package is missing before anything has begun, rather than in the middle of it.

    Raises:
        ModuleNotFoundError: one of them is not installed.
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
