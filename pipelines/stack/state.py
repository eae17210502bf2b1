"""What the stack keeps between starts: ports and credentials, drawn once. Comes in: a folder. Goes out: its state.json."""

import json
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adabert_core.errors import UserError

HOST = "127.0.0.1"
_PASSWORDS = ("s3_secret", "postgres_password", "mlflow_password", "flask_secret")
_ATTEMPTS = 3
_PORTS_ABOVE = 1000  # how far from the usual port a free one is looked for


class State:
    """Ports by name and credentials of one stack folder; every change is on disk when the call returns.

    Ports are looked for from the usual one of each server on, plus `ports_from`: stacks that far apart never take each other's,
    not even while one is down.
    """

    def __init__(self, folder: Path, ports_from: int = 0) -> None:
        self._file, self._ports_from = folder / "state.json", ports_from
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._values: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
        except ValueError as error:
            raise UserError(f"{self._file} is not JSON any more: restore it, or remove {folder} with all its data.") from error
        if not self._values:
            drawn = {name: secrets.token_urlsafe(24) for name in _PASSWORDS}
            self._values = {"ports": {}, "s3_key": f"adabert{secrets.token_hex(6)}", **drawn}
            self._save()

    def __getitem__(self, name: str) -> str:
        """A credential."""
        return self._values[name]

    @property
    def ports(self) -> Mapping[str, int]:
        """The ports chosen so far."""
        return self._values["ports"]

    def on_free_ports(self, usual: Mapping[str, int], start: Callable[[], None]) -> None:
        """Calls `start` with a free port kept for each name; again with others if somebody else has taken one meanwhile."""
        for attempt in range(_ATTEMPTS):
            self._choose_ports(usual)
            chosen = dict(self.ports)
            try:
                return start()
            except UserError:
                self._choose_ports(usual)
                if chosen == self.ports or attempt == _ATTEMPTS - 1:
                    raise

    def _choose_ports(self, usual: Mapping[str, int]) -> None:
        """Keeps each remembered port that is free, and draws a new one, the first free from the usual one on, for the others."""
        ports = self._values["ports"]
        for name, first in ((name, port + self._ports_from) for name, port in usual.items()):
            taken = {port for other, port in ports.items() if other != name}
            wanted = [ports[name]] if name in ports else []
            ports[name] = next(
                (port for port in [*wanted, *range(first, first + _PORTS_ABOVE)] if port not in taken and _is_free(port)), None
            )
            if ports[name] is None:
                raise UserError(f"no free port between {first} and {first + _PORTS_ABOVE} on {HOST} for {name}.")
        self._save()

    def _save(self) -> None:
        write_private(self._file, json.dumps(self._values, indent=1) + "\n")


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    scratch.replace(path)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: a closed connection may linger
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
