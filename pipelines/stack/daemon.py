"""A server process that outlives the command that started it.

Comes in: a command line. Goes out: NAME.pid and NAME.log in a folder. The pid file holds the start time as well, so that
a number the system has since given to somebody else is never signalled.
"""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from adabert_core.errors import UserError

_SAME_BIRTH_SECONDS = 2.0  # what a corrected clock may move the start time by


class Daemon:
    """The process NAME of a folder, if it runs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self._pid_file = folder / f"{name}.pid"

    def process(self) -> psutil.Process | None:
        """Returns the running process, None where there is none."""
        with contextlib.suppress(OSError, ValueError, KeyError, psutil.NoSuchProcess):
            known = json.loads(self._pid_file.read_text())
            found = psutil.Process(known["pid"])
            born_then = abs(found.create_time() - known["born"]) < _SAME_BIRTH_SECONDS
            return found if born_then and is_alive(found) else None
        return None

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str], is_ready: Callable[[], bool], seconds: float = 90
    ) -> None:
        """Starts the server and returns when it is ready.

        Raises:
            UserError: it ended or was not ready in time; nothing of it is left running then.
        """
        with self.log.open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - our own command lines
                command,
                env=environment,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal that started it is not meant for it
            )
        self._pid_file.write_text(json.dumps({"pid": child.pid, "born": psutil.Process(child.pid).create_time()}))
        deadline = time.monotonic() + seconds
        try:
            while child.poll() is None and not is_ready() and time.monotonic() < deadline:
                time.sleep(0.2)
            if child.poll() is not None or time.monotonic() >= deadline:
                what = "ended while it started" if child.poll() is not None else f"was not ready within {seconds:.0f} s"
                raise UserError(f"{self.name} {what}; its log {self.log} ends with: {self._last_line()}")
        except BaseException:
            self.stop()
            raise

    def stop(self, how: signal.Signals = signal.SIGTERM, *, only_parent: bool = False, seconds: float = 30) -> bool:
        """Ends the process and its children, by force after `seconds`; returns whether it ran."""
        parent = self.process()
        if parent:
            family = [parent, *parent.children(recursive=True)]
            for member in family[:1] if only_parent else family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.send_signal(how)
            for member in _survivors(family, seconds):
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            _survivors(family, 5)
        self._pid_file.unlink(missing_ok=True)
        return parent is not None

    def _last_line(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "(nothing)"


def is_alive(process: psutil.Process) -> bool:
    """True while a process runs; one that has ended and whose parent has not asked yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _survivors(family: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while (alive := [member for member in family if is_alive(member)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive
