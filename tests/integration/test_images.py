"""The images as a cluster runs them: any UID, a read-only root, no network unless it is needed."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

Inside = Callable[..., str]
Docker = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1500)  # the first of them builds the images
LOCKED_DOWN = ["run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none", "--user", "54321:54321", "--cap-drop", "ALL"]
TARGETS = pytest.mark.parametrize("target", ["cpu", "mlflow"])


@pytest.fixture
def inside(docker: Docker) -> Inside:
    """What a command prints in a container that may do as little as a pod."""

    def run(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
        done = docker(*LOCKED_DOWN, *options, image, *command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_cpu_image_stays_under_its_bound(images: dict[str, str], docker: Docker) -> None:
    size = int(docker("image", "inspect", "--format", "{{.Size}}", images["cpu"]).stdout)
    assert 0.5e9 < size < 1.6e9


def test_any_user_on_a_read_only_root_can_work(images: dict[str, str], inside: Inside) -> None:
    said = inside(images["cpu"], "adabert", "doctor", "--tracking-uri", "", "--checkpoint-uri", "/tmp/checkpoints")
    assert "ok    checkpoints: /tmp/checkpoints can be written" in said
    assert "FAIL" not in said


def test_a_task_runs_and_its_result_names_the_commit(
    images: dict[str, str], inside: Inside, learnable_csv: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(learnable_csv.read_bytes())
    config = "/opt/venv/lib/python3.11/site-packages/pipelines/configs/smoke.yaml"
    command = (
        f"adabert prepare_data --config {config} --set data.source=/rows.csv --output /tmp/run >&2 && cat /tmp/run/manifest.json"
    )
    manifest = json.loads(inside(images["cpu"], "sh", "-c", command, options=("-v", f"{rows}:/rows.csv:ro")))
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert manifest["stage"] == "prepare_data"
    assert manifest["git_sha"] == head.stdout.strip()


def test_code_inside_is_the_code_of_the_checkout(images: dict[str, str], inside: Inside) -> None:
    listing = "cd /opt/venv/lib/python3.11/site-packages; find adabert_core components pipelines -type f | xargs sha256sum"
    found = dict(reversed(line.split("  ", 1)) for line in inside(images["cpu"], "sh", "-c", listing).splitlines())
    tracked = ["git", "ls-files", "adabert_core", "components", "pipelines"]
    files = subprocess.run(tracked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert found == {file: hashlib.sha256((ROOT / file).read_bytes()).hexdigest() for file in files}


@TARGETS
def test_no_compiler_cache_or_bytecode_is_inside(images: dict[str, str], inside: Inside, target: str) -> None:
    programs = "for name in gcc cc g++ ld make; do command -v $name; done"
    leftovers = (
        "find / -xdev '(' -name __pycache__ -o -name '*.whl' -o -path '*/.cache/*' ')' ! -path '/usr/share/python-wheels/*'"
    )
    build_mounts = "find /wheels /locked /src /install.sh -type f"
    assert inside(images[target], "sh", "-c", f"{programs}; {leftovers}; {build_mounts} 2>/dev/null || true") == ""


@TARGETS
def test_packages_are_those_of_the_lock_and_fit_together(images: dict[str, str], inside: Inside, target: str) -> None:
    locked = {line.lower() for line in (ROOT / "constraints.txt").read_text().split()}
    listed = inside(images[target], "pip", "list", "--format", "freeze", "--exclude", "adabert-pipeline").split()
    unlocked = {line.lower().replace("+cpu", "") for line in listed} - locked
    assert {line.split("==")[0] for line in unlocked} == {"pip"}  # the base brings it
    assert inside(images[target], "pip", "check").strip() == "No broken requirements found."


def pip(*arguments: str) -> str:
    return subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=True).stdout


@TARGETS
def test_nothing_of_the_host_is_inside(images: dict[str, str], docker: Docker, target: str, tmp_path: Path) -> None:
    words = {str(ROOT)}
    for word in pip("config", "list").replace("'", " ").split():
        url = urlsplit(word)
        words |= {word, url.netloc, url.password or ""} if url.scheme in ("http", "https", "file") else set()
    public = pip("install", "--help") + "".join((ROOT / "docker" / name).read_text() for name in ("build.sh", "Dockerfile"))
    needles = [word.encode() for word in words if word and word not in public]
    history = docker("history", "--no-trunc", images[target]).stdout.encode()
    assert [needle for needle in needles if needle in history] == []

    container = docker("create", images[target]).stdout.strip()
    try:
        assert docker("export", "--output", str(tmp_path / "root.tar"), container).returncode == 0
        with tarfile.open(tmp_path / "root.tar") as archive:
            files = ((entry.name, archive.extractfile(entry)) for entry in archive if entry.isfile())
            contents = ((name, file.read()) for name, file in files if file)
            found = [(name, needle) for name, content in contents for needle in needles if needle in content]
    finally:
        docker("rm", container)
    assert found == []


def test_mlflow_serves_as_any_user_and_reports_its_health(images: dict[str, str], docker: Docker) -> None:
    container = docker(*LOCKED_DOWN, "--detach", images["mlflow"]).stdout.strip()
    try:
        state, deadline = "starting", time.monotonic() + 120
        while state == "starting" and time.monotonic() < deadline:
            time.sleep(1)
            state = docker("inspect", "--format", "{{.State.Health.Status}}", container).stdout.strip()
        assert state == "healthy", docker("logs", container).stdout
        ask = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:5000/health').read().decode())"
        assert docker("exec", container, "python3", "-c", ask).stdout.strip() == "OK"
    finally:
        docker("rm", "--force", container)


def test_mlflow_image_has_what_the_server_needs(images: dict[str, str], inside: Inside, docker: Docker) -> None:
    inside(images["mlflow"], "python3", "-c", "import boto3, flask_wtf, psycopg2")
    assert docker(*LOCKED_DOWN, images["mlflow"], "python3", "-c", "import torch").returncode == 1


def test_a_tag_never_names_code_that_is_not_committed(images: dict[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
    with (copy / "adabert_core" / "errors.py").open("a") as file:
        file.write("# changed\n")
    environment = {**os.environ, "BASE_IMAGE": images["cpu"], "PYTHON": sys.executable}
    done = subprocess.run([copy / "docker" / "build.sh", "cpu"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "commit first" in done.stderr
