"""Real servers and real images for the tests, through the code that users start them with.

What this machine lacks skips a test with the reason; where CI is set in the environment it fails it.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from adabert_core.errors import UserError
from pipelines.compiled import default_image
from pipelines.stack.stack import Stack
from tests.integration.faults import long_settings, write_settings

ROOT = Path(__file__).parents[2]
DOCKER = os.environ.get("DOCKER", "docker")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("integration")


def lacking(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI skips nothing: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """SeaweedFS, PostgreSQL and MLflow, up; a test that stops one of its servers starts it again.

    Every process of the tests has one, and ports of its own for it.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    made = Stack(tmp_path_factory.mktemp("stack"), ports_from=50 * worker)
    try:
        made.up()
    except UserError as error:
        lacking(str(error))
    yield made
    made.down()


@pytest.fixture
def stack_environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The stack's variables, set for this test and for the processes it starts, and no others of their kind."""
    return use_servers(stack, monkeypatch)


def use_servers(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Sets a stack's variables, removes others of their kind, and returns those that it has set."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in stack.environment().items():
        monkeypatch.setenv(name, value)
    return stack.environment()


@pytest.fixture(scope="session")
def docker() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls docker with the arguments given; it answers on this machine."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([DOCKER, *arguments], capture_output=True, text=True, check=False)

    try:
        answer = call("info")
    except OSError as error:
        lacking(f"no Docker: {error}")
    if answer.returncode:
        lacking(f"no Docker Engine answers: {answer.stderr.strip().splitlines()[-1]}")
    return call


@pytest.fixture(scope="session")
def images(docker: Callable[..., subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The names of this commit's images by target, built where they are not here yet, by one process of the tests at a time."""
    base = os.environ.get("BASE_IMAGE", "adabert-base:bookworm")
    with _alone(tmp_path_factory.getbasetemp().parent / "images"):
        if docker("image", "inspect", base).returncode:
            _build(["docker/make_base.sh", base], {})
        _build(["docker/build.sh", "cpu", "mlflow"], {"BASE_IMAGE": base, "PYTHON": sys.executable})
    return {"cpu": default_image(), "mlflow": default_image().replace("adabert-python:", "adabert-mlflow:")}


def _build(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode == 2:  # something is missing here, and the last line says what
        lacking(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, learnable_csv: Path, bert_folder: Path) -> Path:
    """A finished run of stages that take some seconds each: what a disturbed one must end with. One for all processes."""
    base = tmp_path_factory.getbasetemp()
    run = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "undisturbed"
    with _alone(run):
        if not (run / "register").exists():
            _make_undisturbed(run, learnable_csv, bert_folder)
    return run


def _make_undisturbed(run: Path, csv: Path, model: Path) -> None:
    run.mkdir()
    rows, teacher = run / "rows.csv", run / "teacher"
    shutil.copy(csv, rows)
    shutil.copytree(model, teacher)
    values = [*long_settings(f"data.source={rows}", f"teacher.model={teacher}", "tracking_uri=''")]
    write_settings(run, values)
    command = [sys.executable, "-m", "adabert_core.cli", "run", "--config", str(run / "smoke.yaml"), *values, "--no-plan"]
    done = subprocess.run([*command, "--output", str(run)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Lets one process of the tests at a time make something."""
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
