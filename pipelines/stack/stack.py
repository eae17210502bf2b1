"""The stack as a whole: up, down, and the variables by which programs find it. All of it lives in one folder."""

import contextlib
import fcntl
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from adabert_core.errors import UserError
from pipelines.stack.servers import MLflow, PostgreSQL, SeaweedFS, Server
from pipelines.stack.state import State, write_private


class Stack:
    """SeaweedFS, PostgreSQL and MLflow of one folder; stopped and started again they have the same data and credentials."""

    def __init__(self, folder: Path, ports_from: int = 0) -> None:
        self.folder = folder.absolute()
        self.state = State(self.folder, ports_from)
        self.s3 = SeaweedFS(self.folder, self.state)
        self.database = PostgreSQL(self.folder, self.state)
        self.mlflow = MLflow(self.folder, self.state, self.database, self.s3)
        self.servers: tuple[Server, ...] = (self.s3, self.database, self.mlflow)

    def up(self, tell: Callable[[str], None] = lambda line: None) -> None:
        """Starts what does not run, telling a line about each server, and writes the env file.

        Raises:
            UserError: one did not start; those that this call had started are stopped again.
        """
        started: list[Server] = []
        with self._alone():
            try:
                for server in self.servers:
                    if not server.daemon.process():
                        started.append(server)
                        server.start()
                    note = "" if server in started else " (was up)"
                    tell(f"{server.daemon.name:<11} {server.said()}{note}")
            except BaseException:
                for server in reversed(started):
                    server.stop()
                raise
            self._write_env()

    def down(self, tell: Callable[[str], None] = lambda line: None) -> None:
        """Ends what this folder's `up` has started, and nothing else."""
        with self._alone():
            for server in reversed(self.servers):
                tell(f"{server.daemon.name:<11} {'stopped' if server.stop() else 'was not up'}")

    def status(self) -> dict[str, str]:
        """Returns for each server where it listens, or 'down'."""
        return {server.daemon.name: server.said() if server.daemon.process() else "down" for server in self.servers}

    def environment(self) -> dict[str, str]:
        """The variables by which boto3 and MLflow find the stack."""
        return self.s3.environment() | self.mlflow.environment()

    @property
    def env_file(self) -> Path:
        """A file of `export NAME=value` lines, which a shell sources and make includes; only its owner can read it."""
        return self.folder / "env"

    def _write_env(self) -> None:
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment().items()]
        write_private(self.env_file, "".join(lines))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"another command is working on the stack in {self.folder}: wait for it.") from error
            yield
