"""The stack's servers: what they refuse, where data lands, and that down ends exactly what up has started."""

import contextlib
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from pipelines.stack.daemon import is_alive
from pipelines.stack.servers import BUCKETS
from pipelines.stack.stack import Stack


def family(stack: Stack) -> list[psutil.Process]:
    parents = [server.daemon.process() for server in stack.servers]
    return [process for parent in parents if parent for process in (parent, *parent.children(recursive=True))]


def test_env_file_is_private_and_means_the_same_to_a_shell_and_to_make(stack: Stack, tmp_path: Path) -> None:
    assert stat.S_IMODE(stack.env_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(stack.folder.stat().st_mode) == 0o700
    (tmp_path / "Makefile").write_text(f"include {stack.env_file}\nshow:\n\t@env\n")
    for command in (["sh", "-c", f". {stack.env_file}; env"], ["make", "-s", "-C", str(tmp_path), "show"]):
        told = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True).stdout
        assert set(stack.environment().items()) <= {tuple(line.partition("=")[::2]) for line in told.splitlines()}


def test_s3_keeps_objects_in_every_bucket_and_refuses_a_wrong_secret(stack_environment: dict[str, str]) -> None:
    client = boto3.client("s3")
    assert {*BUCKETS} <= {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in BUCKETS:
        client.put_object(Bucket=bucket, Key="trial/object", Body=bucket.encode())
        assert client.get_object(Bucket=bucket, Key="trial/object")["Body"].read() == bucket.encode()
        client.delete_object(Bucket=bucket, Key="trial/object")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger = {"aws_access_key_id": stack_environment["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": "wrong"}
        boto3.client("s3", **stranger).list_objects_v2(Bucket=BUCKETS[0])


def test_objects_cannot_be_read_around_s3(stack: Stack, stack_environment: dict[str, str]) -> None:
    boto3.client("s3").put_object(Bucket="adabert-exports", Key="private", Body=b"x" * 100_000)
    with pytest.raises((HTTPError, URLError)):
        urlopen(f"http://127.0.0.1:{stack.state.ports['filer']}/buckets/adabert-exports/private", timeout=5).read()


def test_mlflow_lets_nobody_in_without_the_password(stack: Stack) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{stack.mlflow.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default")
    assert refused.value.code == 401


def test_mlflow_keeps_runs_in_postgresql_and_artifacts_in_s3(
    stack: Stack, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    import psycopg2
    from mlflow import MlflowClient

    client = MlflowClient(stack_environment["MLFLOW_TRACKING_URI"])
    run = client.create_run(client.create_experiment("of the stack's test")).info.run_id
    client.log_metric(run, "accuracy", 0.75)
    (tmp_path / "note.txt").write_text("kept")
    client.log_artifact(run, str(tmp_path / "note.txt"))
    client.set_terminated(run)

    objects = boto3.client("s3").list_objects_v2(Bucket="adabert-mlflow")["Contents"]
    assert [entry["Size"] for entry in objects if entry["Key"].endswith(f"{run}/artifacts/note.txt")] == [4]
    session = psycopg2.connect(stack.database.uri("mlflow").replace("+psycopg2", ""))
    with session, session.cursor() as cursor:
        cursor.execute("SELECT value FROM metrics WHERE run_uuid = %s", (run,))
        assert cursor.fetchall() == [(0.75,)]
    session.close()


def test_every_socket_listens_on_loopback(stack: Stack) -> None:
    sockets = []
    for process in family(stack):
        with contextlib.suppress(psutil.NoSuchProcess):  # MLflow starts short-lived helpers
            sockets += process.net_connections("inet")
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_servers_leave_no_log_outside_the_folder(stack: Stack) -> None:
    process = stack.s3.daemon.process()
    assert process
    assert list(Path("/tmp").glob(f"weed.*.{process.pid}")) == []


def test_no_credential_is_on_a_command_line_or_in_a_log(stack: Stack) -> None:
    secrets = [stack.state[name] for name in ("s3_secret", "postgres_password", "mlflow_password", "flask_secret")]
    said = [" ".join(process.cmdline()) for process in family(stack)]
    said += [path.read_text(errors="replace") for path in stack.folder.glob("*.log")]
    assert len(said) > len(stack.servers)
    assert [secret for secret in secrets for text in said if secret in text] == []


def test_second_up_starts_nothing_and_says_so(stack: Stack) -> None:
    before, lines = {process.pid for process in family(stack)}, []
    Stack(stack.folder).up(lines.append)
    assert {process.pid for process in family(stack)} == before
    assert [line.endswith("(was up)") for line in lines] == [True, True, True]


def test_down_ends_all_of_it_and_up_brings_back_the_same(
    stack: Stack, stack_environment: dict[str, str], command: Callable[..., str]
) -> None:
    boto3.client("s3").put_object(Bucket="adabert-exports", Key="kept", Body=b"kept")
    processes, ports = family(stack), dict(stack.state.ports)
    assert command("down").count("stopped") == 3
    assert [process for process in processes if is_alive(process)] == []
    assert command("status", code=1).count("down") == 3
    assert command("down").count("was not up") == 3

    told = command("up")
    assert stack.mlflow.url in told
    again = Stack(stack.folder)
    assert again.state.ports == ports
    assert again.environment() == stack_environment
    assert boto3.client("s3").get_object(Bucket="adabert-exports", Key="kept")["Body"].read() == b"kept"
    from mlflow import MlflowClient

    assert MlflowClient(again.mlflow.url).get_experiment_by_name("of the stack's test") is not None


@pytest.fixture
def command(stack: Stack) -> Callable[..., str]:
    """What `python -m pipelines.stack WORD` prints for the stack's folder."""

    def run(word: str, code: int = 0) -> str:
        line = [sys.executable, "-m", "pipelines.stack", word, "--folder", str(stack.folder)]
        done = subprocess.run(line, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    return run
