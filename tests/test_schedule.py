"""`pipelines.run schedule` against a server that speaks v2beta1 over HTTP: one schedule per name, whatever happens on the way."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from kfp_api_actions import State
from kfp_api_server import Done

from pipelines.connection import connect
from pipelines.schedules import table

Command = Callable[..., Done]


def schedule(command: Command, server: State, *arguments: str, cron: str = "0 0 3 * * *") -> Done:
    return command("schedule", "--endpoint", server.url, "--cron", cron, *arguments)


def ids(server: State) -> list[str]:
    return [run["recurring_run_id"] for run in server.recurringruns]


def other_schedule(server: State, **fields: Any) -> None:
    """A recurring run that somebody made in the web pages."""
    made = {"display_name": "theirs", "recurring_run_id": "r-1", "experiment_id": "e-1", "created_at": "2025-01-01T00:00:00Z"}
    server.recurringruns.append(made | {"status": "ENABLED", "mode": "ENABLE", "trigger": {}} | fields)


def test_schedule_is_made_with_every_field(server: State, command: Command) -> None:
    done = schedule(
        *(command, server, "--name", "nightly", "--experiment", "recompression", "--set", "seed=3", "--set", "search.beta=0.02"),
        *("--service-account", "adabert-runner", "--pipeline-root", "s3://adabert-pipelines/v2"),
        *("--checkpoint-uri", "s3://adabert-checkpoints/nightly"),
        cron="0 30  4 * * MON-FRI",
    )
    assert done.code == 0, done.error
    assert done.out.splitlines()[-1] == "schedule   nightly: created"
    assert server.writes == ["POST /pipelines", "POST /pipelines/upload_version", "POST /experiments", "POST /recurringruns"]
    (request,) = server.calls("POST", "/recurringruns")
    body = dict(request.body)
    parameters = body["runtime_config"].pop("parameters")
    assert body.pop("description").startswith("Made by pipelines.run schedule; settings ")
    assert body == {
        "display_name": "nightly",
        "experiment_id": server.experiments[0]["experiment_id"],
        "pipeline_version_reference": {
            "pipeline_id": server.pipelines[0]["pipeline_id"],
            "pipeline_version_id": server.versions[0]["pipeline_version_id"],
        },
        "runtime_config": {"pipeline_root": "s3://adabert-pipelines/v2"},
        "service_account": "adabert-runner",
        "trigger": {"cron_schedule": {"cron": "0 30 4 * * MON-FRI"}},
        "mode": "ENABLE",
        "max_concurrency": "1",
        "no_catchup": True,
    }
    assert parameters["seed"] == 3 and isinstance(parameters["seed"], int)
    assert parameters["search"]["beta"] == 0.02
    assert parameters["data"]["source"] == "builtin:movie-reviews"
    assert parameters["checkpoint_uri"] == "s3://adabert-checkpoints/nightly"


def test_the_same_schedule_again_writes_nothing(server: State, command: Command) -> None:
    schedule(command, server)
    before = list(server.writes)
    assert schedule(command, server).out.splitlines()[-1] == "schedule   adabert: unchanged"
    assert server.writes == before


@pytest.mark.parametrize(
    ("arguments", "cron"),
    [
        ((), "0 0 4 * * *"),
        (("--set", "seed=1"), "0 0 3 * * *"),
        (("--image", "adabert-python:2"), "0 0 3 * * *"),
        (("--no-cache",), "0 0 3 * * *"),
        (("--service-account", "other"), "0 0 3 * * *"),
    ],
)
def test_a_change_makes_the_new_one_before_it_deletes_the_old(
    arguments: tuple[str, ...], cron: str, server: State, command: Command
) -> None:
    schedule(command, server, "--name", "kept")
    schedule(command, server)
    kept, old = ids(server)
    done = schedule(command, server, *arguments, cron=cron)
    assert done.out.splitlines()[-1] == "schedule   adabert: changed"
    assert server.writes[-2:] == ["POST /recurringruns", f"DELETE /recurringruns/{old}"]
    assert ids(server)[0] == kept and len(ids(server)) == 2
    assert server.recurringruns[1]["trigger"]["cron_schedule"]["cron"] == cron


def test_stopped_between_making_and_deleting_leaves_a_schedule_and_the_next_call_mends_it(
    server: State, command: Command
) -> None:
    schedule(command, server)
    server.fail = {"DELETE /recurringruns": [500]}
    stopped = schedule(command, server, cron="0 0 4 * * *")
    assert (stopped.code, len(stopped.error.splitlines())) == (2, 1)
    assert len(server.recurringruns) == 2
    new = ids(server)[1]
    assert schedule(command, server, cron="0 0 4 * * *").out.splitlines()[-1] == "schedule   adabert: unchanged"
    assert ids(server) == [new]


def test_paused_schedule_stays_paused_when_it_changes(server: State, command: Command) -> None:
    schedule(command, server)
    command("schedule", "--endpoint", server.url, "--pause")
    done = schedule(command, server, cron="0 0 4 * * *")
    assert "paused: start it with --resume" in done.out
    assert server.calls("POST", "/recurringruns")[-1].body["mode"] == "DISABLE"
    assert [run["status"] for run in server.recurringruns] == ["DISABLED"]


def test_pause_resume_and_delete_twice_do_it_once(server: State, command: Command) -> None:
    schedule(command, server)
    (made,) = ids(server)
    before = len(server.writes)
    said = []
    for action in ("--pause", "--pause", "--resume", "--resume", "--delete", "--delete"):
        done = command("schedule", "--endpoint", server.url, action)
        assert done.code == 0, done.error
        said.append(done.out.strip().removeprefix("schedule   adabert: "))
    assert said == ["paused", "paused", "resumed", "resumed", "deleted", "nothing is scheduled under this name"]
    path = f"/recurringruns/{made}"
    assert server.writes[before:] == [f"POST {path}:disable", f"POST {path}:enable", f"DELETE {path}"]


def test_pausing_what_is_not_scheduled_names_what_is(server: State, command: Command) -> None:
    other_schedule(server)
    done = command("schedule", "--endpoint", server.url, "--name", "Theirs", "--pause")  # names differ by case only
    assert done.code == 2
    assert done.error.strip() == "adabert: nothing is scheduled as Theirs; scheduled are: theirs."
    assert server.writes == []


def test_schedule_is_found_on_any_page(server: State, command: Command) -> None:
    server.page_size = 1
    for name in ("a", "b", "c"):
        schedule(command, server, "--name", name)
    assert "unchanged" in schedule(command, server, "--name", "c").out
    lines = command("schedule", "--endpoint", server.url, "--list").out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "a", "b", "c"]


def test_list_tells_cron_state_next_and_last_run(server: State, command: Command) -> None:
    schedule(command, server, cron="0 30 4 29 2 *")
    schedule(command, server, "--name", "rest")
    command("schedule", "--endpoint", server.url, "--name", "rest", "--pause")
    other_schedule(server, trigger={"periodic_schedule": {"interval_second": "3600"}})
    nightly, experiment = server.recurringruns[0]["recurring_run_id"], server.experiments[0]["experiment_id"]
    for day, state in ((1, "SUCCEEDED"), (3, "RUNNING"), (2, "FAILED")):
        run = {"run_id": f"run-{day}", "experiment_id": experiment, "display_name": "adabert", "recurring_run_id": nightly}
        server.runs.append(run | {"state": state, "created_at": f"2026-02-0{day}T04:30:07Z"})
    with connect(server.url, "", "", None) as remote:
        rows = table(remote, datetime(2026, 2, 10, tzinfo=UTC))
    assert rows == [
        ("adabert", "0 30 4 29 2 *", "on", "2028-02-29 04:30", "2026-02-03 04:30 running"),
        ("rest", "0 0 3 * * *", "paused", "-", "-"),
        ("theirs", "every 3600 s", "on", "-", "-"),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cron", "0 3 * * *"], 'did you mean "0 0 3 * * *"?'),
        (["--cron", "0 0 25 * * *"], "hour"),
        ([], "--cron"),
        (["--cron", "0 0 3 * * *", "--pause"], "--cron"),
        (["--cron", "0 0 3 * * *", "--set", "data.source=README.md"], "on this machine"),
    ],
)
def test_mistake_is_one_sentence_before_anything_is_sent(
    arguments: list[str], sentence: str, server: State, command: Command
) -> None:
    done = command("schedule", "--endpoint", server.url, *arguments)
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert line.startswith("adabert: ") and sentence in line
    assert server.log == []
