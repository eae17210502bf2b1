"""kubectl port-forward, started and ended by us. Comes in: SERVICE[:PORT]/NAMESPACE. Goes out: a URL on the loopback."""

import os
import re
import subprocess
import tempfile
import time
from types import TracebackType
from typing import IO

from adabert_core.errors import UserError

_TARGET = re.compile(r"(?P<service>[a-z0-9.-]+)(:(?P<port>\d+))?/(?P<namespace>[a-z0-9-]+)")
API_PORT = "8888"  # of the Service ml-pipeline, plain HTTP
START_SECONDS = 30


class Tunnel:
    """A context in which `url` leads to the service. It stays on one local port, so that `revive` can follow a restarted pod."""

    def __init__(self, target: str) -> None:
        found = _TARGET.fullmatch(target)
        if not found:
            raise UserError(f"--port-forward {target}: write SERVICE/NAMESPACE, for example ml-pipeline/kubeflow.")
        self.target, self.parts = target, found
        self.port = ""  # the first start lets kubectl choose
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] = tempfile.TemporaryFile()  # a pipe that nobody reads would stop kubectl when it is full

    @property
    def url(self) -> str:
        """The local end."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Tunnel":
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        self._output.close()

    def revive(self) -> None:
        """Starts kubectl again if it has ended; while it cannot, the next call tries again."""
        if self._process is None or self._process.poll() is not None:
            try:
                self._start()
            except UserError:
                self._stop()

    def _start(self) -> None:
        service, port, namespace = self.parts["service"], self.parts["port"] or API_PORT, self.parts["namespace"]
        ports = f"{self.port}:{port}"
        command = ["kubectl", "port-forward", "--address", "127.0.0.1", "-n", namespace, f"service/{service}", ports]
        self._output.seek(0)
        self._output.truncate()
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output)  # noqa: S603
        except FileNotFoundError as error:
            raise UserError("--port-forward needs kubectl on the PATH.") from error
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ended = self._process.poll() is not None
            said = self._said()
            if found := re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", said):
                self.port = found[1]
                return
            if ended:
                reason = (said.strip().splitlines() or ["it said nothing"])[-1]
                raise UserError(f"--port-forward {self.target}: kubectl could not ({reason.removeprefix('error: ')}).")
            time.sleep(0.05)
        raise UserError(f"--port-forward {self.target}: kubectl did not open it in {START_SECONDS} s.")

    def _said(self) -> str:
        """What kubectl wrote; read in place, because it writes where our common file position stands."""
        return os.pread(self._output.fileno(), 65536, 0).decode(errors="replace")

    def _stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
