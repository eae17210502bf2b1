"""The three servers, in the order they need each other: SeaweedFS (S3), PostgreSQL, MLflow.

Comes in: a folder and its State. Goes out: running processes on loopback, their data in a subfolder each.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote
from urllib.request import urlopen

from adabert_core.errors import UserError
from pipelines.stack.daemon import Daemon
from pipelines.stack.state import HOST, State, write_private

BUCKETS = ("adabert-pipelines", "adabert-checkpoints", "adabert-mlflow", "adabert-exports")
REGION = "us-east-1"
INSTALL = "install the stack's packages: pip install -c constraints.txt -e '.[stack]'"


class Server(Protocol):
    """One server of the stack."""

    daemon: Daemon

    def start(self) -> None:
        """Starts it on free ports and returns when it answers."""

    def stop(self) -> bool:
        """Ends it and returns whether it ran."""

    def said(self) -> str:
        """One line on where it listens."""


class SeaweedFS:
    """S3 with one identity that may do everything, and the buckets."""

    def __init__(self, folder: Path, state: State) -> None:
        self.daemon = Daemon(folder, "seaweedfs")
        self._folder, self._state = folder / "seaweedfs", state

    def start(self) -> None:
        """Starts `weed server` with S3 and makes the buckets that are missing."""
        usual = {"s3": 8333, "master": 9333, "volume": 8080, "filer": 8888}
        self._state.choose_ports(usual | {f"{name}.grpc": port + 10000 for name, port in usual.items()})
        self._folder.mkdir(exist_ok=True)
        keys = [{"accessKey": self._state["s3_key"], "secretKey": self._state["s3_secret"]}]
        identity = {"name": "adabert", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        config = self._folder.with_name("seaweedfs.json")
        write_private(config, json.dumps({"identities": [identity]}))
        ports = [f"-{name}.port{rest}={self._state.ports[f'{name}{rest}']}" for name in usual for rest in ("", ".grpc")]
        self.daemon.start(
            [
                _program("weed"),
                "server",
                f"-dir={self._folder}",
                f"-ip={HOST}",
                f"-ip.bind={HOST}",
                "-s3",
                f"-s3.config={config}",
                "-master.volumeSizeLimitMB=256",
                "-volume.max=0",  # as many as the disk holds: a bucket takes several
                "-telemetry=false",
                *[flag.replace(".port.grpc", ".port.grpc") for flag in ports],
            ],
            dict(os.environ),
            self._has_buckets,
        )

    def stop(self) -> bool:
        """Ends it."""
        return self.daemon.stop()

    def said(self) -> str:
        """Where S3 is."""
        return f"S3 on {self.endpoint}, buckets {' '.join(BUCKETS)}"

    @property
    def endpoint(self) -> str:
        """The URL for AWS_ENDPOINT_URL_S3."""
        return f"http://{HOST}:{self._state.ports['s3']}"

    def environment(self) -> dict[str, str]:
        """The variables by which boto3 finds it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self._state["s3_key"],
            "AWS_SECRET_ACCESS_KEY": self._state["s3_secret"],
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
