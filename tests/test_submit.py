"""`pipelines.run submit` and kfp's own command line against a server that speaks v2beta1 over HTTP."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_api_actions import State, check_parameters
from kfp_api_server import Done

from adabert_core import __version__
from adabert_core.config import RunConfig
from adabert_core.config_file import load_run_config
from pipelines import connection
from pipelines.compiled import PRESET, compile_pipeline, pipeline_parameters
from pipelines.remote import content_digest
from pipelines.resources import Placement

ROOT = Path(__file__).parents[1]
Command = Callable[..., Done]


def tasks(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for component in (spec["root"], *spec["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


def numbers(value: Any) -> Any:
    """The value as protobuf keeps it, where every number is a float."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def test_submit_makes_a_pipeline_a_version_an_experiment_and_a_run(server: State, command: Command) -> None:
    done = command(
        *("submit", "--endpoint", server.url, "--experiment", "nightly", "--run-name", "first", "--image", "adabert-python:1-a"),
        *("--set", "seed=3", "--set", "search.beta=0.02", "--set", "data.source=s3://rows/reviews.csv"),
        *("--service-account", "adabert-runner", "--pipeline-root", "s3://adabert-pipelines/v2"),
        *("--checkpoint-uri", "s3://adabert-checkpoints/first"),
    )
    assert done.code == 0, done.error
    assert server.writes == ["POST /pipelines", "POST /pipelines/upload_version", "POST /experiments", "POST /runs"]
    (version,) = server.versions
    assert re.fullmatch(re.escape(__version__) + "-[0-9a-f]{12}", version["name"])
    (request,) = server.calls("POST", "/runs")
    parameters = request.body["runtime_config"].pop("parameters")
    assert request.body == {
        "display_name": "first",
        "experiment_id": server.experiments[0]["experiment_id"],
        "pipeline_version_reference": {
            "pipeline_id": server.pipelines[0]["pipeline_id"],
            "pipeline_version_id": version["pipeline_version_id"],
        },
        "runtime_config": {"pipeline_root": "s3://adabert-pipelines/v2"},
        "service_account": "adabert-runner",
    }
    assert (server.pipelines[0]["display_name"], server.experiments[0]["display_name"]) == ("adabert", "nightly")
    assert parameters["seed"] == 3 and isinstance(parameters["seed"], int)
    assert parameters["search"]["beta"] == 0.02
    assert parameters["search"]["k_max"] == 4
    assert parameters["benchmark"]["lengths"] == [32, 128]
    assert parameters["data"]["source"] == "s3://rows/reviews.csv"
    assert parameters["checkpoint_uri"] == "s3://adabert-checkpoints/first"
    assert set(parameters) == set(version["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"])
    assert f"run        {server.url}/#/runs/details/{server.runs[0]['run_id']}" in done.out.splitlines()


def test_the_same_submit_again_uploads_nothing_and_runs_again(server: State, command: Command) -> None:
    assert "uploaded" in command("submit", "--endpoint", server.url).out
    assert "there already" in command("submit", "--endpoint", server.url, "--set", "seed=7").out
    assert server.writes[-2:] == ["POST /runs", "POST /runs"]
    assert (len(server.pipelines), len(server.versions), len(server.experiments), len(server.runs)) == (1, 1, 1, 2)
    assert "uploaded" in command("submit", "--endpoint", server.url, "--gpus", "0").out
    assert "uploaded" in command("submit", "--endpoint", server.url, "--image", "adabert-python:other").out
    assert (len(server.pipelines), len(server.versions)) == (1, 3)


def test_version_is_found_on_any_page(server: State, command: Command) -> None:
    server.page_size = 1
    for gpus in ("0", "1", "0", "1"):
        assert command("submit", "--endpoint", server.url, "--gpus", gpus).code == 0
    assert len(server.versions) == 2


def test_version_that_somebody_else_uploads_meanwhile_is_used(server: State, command: Command) -> None:
    command("submit", "--endpoint", server.url)
    (version,) = server.versions

    def appear() -> Iterator[dict[str, Any]]:  # not there at the first look, there at the second
        yield from ([] if len(server.calls("GET", "/pipelines/[^/]+/versions")) < 3 else [version])

    class Appearing(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return appear()

    server.versions = Appearing()
    server.fail = {"POST /pipelines/upload_version": [409]}
    assert "there already" in command("submit", "--endpoint", server.url).out
    assert server.runs[1]["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]


def test_digest_is_of_the_content_and_not_of_the_order_or_the_comments(tmp_path: Path) -> None:
    one, same, other = tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml"
    one.write_text("# Inputs: x\na: {x: 1, y: [1, 2]}\nb: 2\n---\nplatforms: {}\n")
    same.write_text("b: 2\na:\n  y: [1, 2]\n  x: 1\n---\nplatforms: {}\n")
    other.write_text("b: 2\na:\n  y: [2, 1]\n  x: 1\n---\nplatforms: {}\n")
    assert content_digest(one) == content_digest(same) != content_digest(other)


@pytest.mark.parametrize("options", [[], ["--no-cache"]])
def test_no_cache_reaches_every_task_also_those_in_the_exit_handler(options: list[str], server: State, command: Command) -> None:
    assert command("submit", "--endpoint", server.url, *options).code == 0
    spec = server.versions[0]["pipeline_spec"]["pipeline_spec"]
    cached = {name for name, task in tasks(spec) if task.get("cachingOptions", {}).get("enableCache")}
    every = {"prepare-data", "finetune-teacher", "distill-targets", "search", "retrain", "benchmark", "register", "finish-run"}
    assert cached == (set() if options else every)
    assert {name for name, _ in tasks(spec)} == every | {"fingerprint-data", "exit-handler-1"}


def compiled(config: RunConfig, file: Path, *, cache: bool = True) -> None:
    """In a thread of its own, because kfp reads the whole stack for every setting of every task, and pytest's is deep."""
    how = Placement("adabert-python:1")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(compile_pipeline, config, file, how, "", cache=cache).result()


def test_compiling_without_cache_leaves_the_next_compilation_as_it_was(tmp_path: Path) -> None:
    config = load_run_config(PRESET)
    files = [tmp_path / f"{name}.yaml" for name in ("before", "without", "after")]
    for file in files:
        compiled(config, file, cache=file.stem != "without")
    before, without, after = map(content_digest, files)
    assert before == after != without


@pytest.mark.parametrize(
    ("ends", "code", "last"),
    [
        ("SUCCEEDED", 0, "the run succeeded"),
        ("FAILED", 1, "the run failed: task search failed"),
        ("CANCELED", 1, "the run was canceled"),
    ],
)
def test_wait_tells_every_change_and_how_it_ended(ends: str, code: int, last: str, server: State, command: Command) -> None:
    server.progress = [
        {"root": "RUNNING", "fingerprint-data-driver": "SUCCEEDED", "fingerprint-data": "RUNNING"},
        {"root": "RUNNING", "fingerprint-data": "RUNNING"},
        {"root": "RUNNING", "fingerprint-data": "SUCCEEDED", "prepare-data": "RUNNING"},
    ]
    server.ends = ends
    done = command("submit", "--endpoint", server.url, "--wait", "--poll-seconds", "0.01")
    lines = [re.sub(r"^\d\d:\d\d:\d\d (\S+) +", r"\1 ", line) for line in done.out.splitlines()[3:]]
    assert lines == ["fingerprint-data running", "fingerprint-data succeeded", "prepare-data running", last]
    assert done.code == code


def test_wait_outlives_an_outage_of_the_server(server: State, command: Command) -> None:
    server.fail = {"GET /runs/": [503, 502, 500]}
    done = command("submit", "--endpoint", server.url, "--wait", "--poll-seconds", "0.01")
    assert (done.code, done.out.splitlines()[-1]) == (0, "the run succeeded")
    assert server.fail == {"GET /runs/": []}


def test_wait_ends_at_once_when_the_run_is_gone(server: State, command: Command) -> None:
    server.fail = {"GET /runs/": [404]}
    done = command("submit", "--endpoint", server.url, "--wait", "--poll-seconds", "0.01")
    assert done.code == 2
    assert "404" in done.error


def test_token_is_read_for_every_request_and_shown_nowhere(
    server: State, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "secret-1"  # noqa: S105
    file = tmp_path / "token"
    file.write_text("secret-1\n")
    done = command("submit", "--endpoint", server.url, "--token", str(file))
    assert done.code == 0, done.error
    assert set(server.authorizations) == {"Bearer secret-1"}
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "secret-2")
    refused = command("submit", "--endpoint", server.url)
    assert refused.code == 2
    assert "401" in refused.error and "--token" in refused.error
    assert "secret" not in done.out + done.error + refused.out + refused.error


def test_namespace_goes_with_every_request_of_a_multi_user_server(server: State, command: Command) -> None:
    server.namespaces = ("team-a",)
    assert command("submit", "--endpoint", server.url, "--namespace", "team-a").code == 0
    assert server.experiments[0]["namespace"] == server.pipelines[0]["namespace"] == "team-a"
    listings = [*server.calls("GET", "/experiments"), *server.calls("GET", "/pipelines")]
    assert {request.query["namespace"] for request in listings} == {"team-a"}
    alone = command("submit", "--endpoint", server.url)
    assert (alone.code, "--namespace" in alone.error) == (2, True)
    foreign = command("submit", "--endpoint", server.url, "--namespace", "team-b")
    assert foreign.code == 2
    assert "403" in foreign.error and "team-b" in foreign.error
    assert len(server.runs) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--endpoint URL or --port-forward"),
        (["--endpoint", "127.0.0.1:8888"], "http:// or https://"),
        (["--endpoint", "http://127.0.0.1:1"], "does not answer ([Errno 111] Connection refused)"),
        (["--endpoint", "http://kfp.invalid"], "does not answer (Failed to resolve"),
        (["--endpoint", "http://[bad"], "does not answer"),
        (["--endpoint", "SECURE"], "does not answer"),
        (["--endpoint", "URL/nowhere"], "404"),
        (["--endpoint", "URL", "--token", "no-such-file"], "--token no-such-file"),
        (["--endpoint", "URL", "--set", "data.source=README.md"], "data.source: README.md is on this machine"),
        (["--endpoint", "URL", "--set", "teacher.model=docs"], "teacher.model: docs is on this machine"),
        (["--endpoint", "URL", "--set", "data.unlabeled=README.md"], "data.unlabeled: README.md is on this machine"),
        (["--endpoint", "URL", "--set", "data.source=~/rows.csv"], "data.source: ~/rows.csv is on this machine"),
        (["--endpoint", "URL", "--checkpoint-uri", "/checkpoints"], "s3://bucket/prefix"),
        (["--endpoint", "URL", "--set", "search.betta=1"], "search.beta"),
        (["--endpoint", "URL", "--set", "search.seed=1"], "one seed"),
    ],
)
def test_mistake_is_one_sentence_and_leaves_the_server_alone(
    arguments: list[str], sentence: str, server: State, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    secure = server.url.replace("http:", "https:")
    done = command("submit", *(part.replace("URL", server.url).replace("SECURE", secure) for part in arguments))
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert line.startswith("adabert: ") and sentence in line
    assert "Traceback" not in done.error
    assert "POST /runs" not in server.writes


@pytest.mark.parametrize(("place", "status"), [("GET /healthz", 500), ("POST /runs", 503), ("POST /pipelines/upload", 400)])
def test_server_that_fails_is_one_sentence_with_its_reason(place: str, status: int, server: State, command: Command) -> None:
    server.fail = {place: [status]}
    done = command("submit", "--endpoint", server.url)
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert f"({status}" in line and "made to fail" in line


def test_login_page_in_the_place_of_the_api_asks_for_a_token(server: State, command: Command) -> None:
    server.login_page = True
    done = command("submit", "--endpoint", server.url)
    assert (done.code, "--token" in done.error, len(done.error.splitlines())) == (2, True, 1)


def test_server_that_never_answers_does_not_hold_the_command(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEALTH_TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = command("submit", "--endpoint", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert done.code == 2
    assert "does not answer (Read timed out. (read timeout=0.2))" in done.error


@pytest.mark.parametrize("verb", ["create", "submit"])
def test_kfp_command_line_takes_the_compiled_file_as_it_is(verb: str, server: State, tmp_path: Path) -> None:
    config = load_run_config(PRESET)
    file = tmp_path / "adabert_pipeline.yaml"
    compiled(config, file)
    kfp = [str(Path(sys.executable).with_name("kfp")), "--endpoint", server.url]
    data = {"source": "s3://rows/reviews.csv", "max_train_rows": 100}
    arguments = ["run", verb, "-e", "EXP", "-f", str(file), "seed=1", f"data={json.dumps(data)}"]
    done = subprocess.run([*kfp, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    body = server.calls("POST", "/runs")[0].body
    assert body["runtime_config"]["parameters"] == {"seed": 1, "data": data}
    assert [type(value) for value in body["runtime_config"]["parameters"].values()] == [int, dict]
    spec, platform = yaml.safe_load_all(file.read_text())
    assert numbers(body["pipeline_spec"]) == numbers({"pipeline_spec": spec, "platform_spec": platform})
    defaults = {name: about["defaultValue"] for name, about in spec["root"]["inputDefinitions"]["parameters"].items()}
    assert numbers(defaults) == numbers(pipeline_parameters(config, ""))
    check_parameters(spec, {})  # nothing has to be given


def test_module_runs_from_a_shell(server: State) -> None:
    command = [sys.executable, "-m", "pipelines.run", "submit", "--endpoint", server.url, "--wait", "--poll-seconds", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", "the run succeeded")
