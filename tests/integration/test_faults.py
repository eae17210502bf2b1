"""Servers that go away in the middle of a stage, and runs that share a prefix: nothing is lost, the result is the same."""

import subprocess
import sys
import time
import uuid
from pathlib import Path

from pipelines.stack.stack import Stack
from tests.integration.faults import arguments, digest, long_settings, wait_for_seal
from tests.whole_run import ROOT


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "adabert_core.cli", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def test_s3_away_for_30_seconds_in_the_middle_of_a_search(
    undisturbed: Path, stack: Stack, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    place = f"s3://adabert-checkpoints/{uuid.uuid4().hex}"
    process = start(*arguments("search", undisturbed, tmp_path / "out", place))
    wait_for_seal(place, alive=lambda: process.poll() is None)
    stack.s3.stop()
    time.sleep(30)
    stack.up()
    ended(process)
    manifest = digest(tmp_path, "out")
    assert manifest == digest(undisturbed, "search")


def test_s3_killed_while_checkpoints_are_written(
    undisturbed: Path, stack: Stack, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    place = f"s3://adabert-checkpoints/{uuid.uuid4().hex}"
    longer = long_settings("retrain.max_steps=3500", "retrain.epochs=3500")  # longer than the outage, on a fast machine too
    words = [*arguments("retrain", undisturbed, tmp_path / "out", place), *longer]
    process = start(*words)
    alone = start(*arguments("retrain", undisturbed, tmp_path / "alone", str(tmp_path / "checkpoints")), *longer)
    wait_for_seal(place, alive=lambda: process.poll() is None)
    server = stack.s3.daemon.process()
    assert server is not None
    server.kill()
    time.sleep(2)
    stack.up()
    time.sleep(1)
    assert process.poll() is None, "the stage ended before it could be killed"
    process.kill()
    process.communicate()
    said = ended(start(*words))
    assert "resumed at step" in said
    ended(alone)
    assert digest(tmp_path, "out") == digest(tmp_path, "alone")


def test_mlflow_away_and_back_loses_no_figure(
    undisturbed: Path, stack: Stack, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    name = uuid.uuid4().hex
    tracked = ["--set", f"tracking_uri={stack_environment['MLFLOW_TRACKING_URI']}", "--set", f"experiment={name}"]
    process = start(*arguments("search", undisturbed, tmp_path / "out", str(tmp_path / "checkpoints")), *tracked)
    client = MlflowClient()
    until = time.monotonic() + 60
    while not client.search_experiments(filter_string=f"name = '{name}'"):
        assert time.monotonic() < until
        time.sleep(0.2)
    stack.mlflow.stop()
    time.sleep(8)
    stack.up()
    said = ended(process)
    assert said.count("does not answer") <= 1
    (experiment,) = client.search_experiments(filter_string=f"name = '{name}'")
    runs = client.search_runs([experiment.experiment_id])
    (child,) = [run for run in runs if run.data.tags.get("adabert.stage") == "search"]
    assert child.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(child.info.run_id, "loss")]
    assert sorted(set(steps)) == [*range(20, 250, 20), 250]
    assert digest(tmp_path, "out") == digest(undisturbed, "search")


def test_two_runs_under_one_prefix_killed_and_started_again(
    undisturbed: Path, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    place = f"s3://adabert-checkpoints/{uuid.uuid4().hex}"
    words = [arguments("search", undisturbed, tmp_path / name, place) for name in ("first", "second")]
    both = [start(*words[0]), start(*words[1])]
    wait_for_seal(place, alive=lambda: all(process.poll() is None for process in both))
    time.sleep(2)
    for process in both:
        process.kill()
        process.wait()
    again = [start(*words[0]), start(*words[1])]
    assert all("resumed at step" in ended(process) for process in again)
    for name in ("first", "second"):
        assert digest(tmp_path, name) == digest(undisturbed, "search")


def test_a_kill_loses_no_more_than_the_last_interval(
    undisturbed: Path, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    place = f"s3://adabert-checkpoints/{uuid.uuid4().hex}"
    words = [
        *arguments("search", undisturbed, tmp_path / "out", place),
        *long_settings("search.max_steps=100000", "search.epochs=100000"),
    ]
    first = start(*words)
    assert first.stdout is not None
    shown = next(line for line in first.stdout if "/100000" in line)  # the first line of progress, after some seconds
    time.sleep(4)  # with an interval of one second, at least one checkpoint later than that line
    first.kill()
    first.communicate()
    again = start(*words)
    assert again.stdout is not None
    resumed = next(line for line in again.stdout if "resumed at step" in line)
    again.kill()
    again.communicate()
    assert int(resumed.split("resumed at step ")[1].split()[0]) > int(shown.split("search ")[1].split("/")[0])


def test_checkpoints_to_s3_every_second_do_not_hold_a_search_up(
    undisturbed: Path, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    """With the default interval a stage of a minute uploads once; here every second, so the bound is loose.

    Both run at the same time, so that whatever else the machine does slows both.
    """
    running = {}
    for name, place, every in (
        ("none", str(tmp_path / "local"), "60"),
        ("s3", f"s3://adabert-checkpoints/{uuid.uuid4().hex}", "1"),
    ):
        words = arguments("search", undisturbed, tmp_path / name, place)
        words[words.index("--checkpoint-seconds") + 1] = every
        running[name] = start(*words, *long_settings("search.max_steps=250"))
    started, spent = time.monotonic(), {}
    while len(spent) < len(running):
        spent |= {name: time.monotonic() - started for name in running.keys() - spent.keys() if running[name].poll() is not None}
        time.sleep(0.05)
    for process in running.values():
        ended(process)
    assert spent["s3"] < 1.5 * spent["none"] + 3
