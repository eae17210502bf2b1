"""What the stack stands on: processes known by more than their number, ports that are free, secrets nobody else reads."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from adabert_core.errors import UserError
from pipelines.stack.daemon import Daemon, is_alive
from pipelines.stack.state import HOST, State

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
PARENT = [
    sys.executable,
    "-c",
    f"import subprocess, time; subprocess.Popen({SLEEP!r}); print('born', flush=True); time.sleep(600)",
]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path, "sleeper")
    yield made
    made.stop(signal.SIGKILL)


def start(daemon: Daemon, command: list[str]) -> psutil.Process:
    daemon.start(command, dict(os.environ), lambda: "born" in daemon.log.read_text() or command is SLEEP)
    process = daemon.process()
    assert process
    return process


def test_stop_ends_a_process_with_its_children(daemon: Daemon) -> None:
    parent = start(daemon, PARENT)
    children = parent.children()
    assert len(children) == 1
    assert daemon.stop()
    assert not is_alive(parent) and not is_alive(children[0])
    assert daemon.process() is None
    assert not daemon.stop()


def test_process_that_ignores_the_signal_is_ended_by_force(daemon: Daemon) -> None:
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('born', flush=True); time.sleep(600)"
    process = start(daemon, [sys.executable, "-c", ignoring])
    assert daemon.stop(seconds=0.5)
    assert not is_alive(process)


def test_number_that_went_to_another_process_is_never_signalled(daemon: Daemon, tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP) as other:
        born = psutil.Process(other.pid).create_time() - 60
        (tmp_path / "sleeper.pid").write_text(json.dumps({"pid": other.pid, "born": born}))
        assert daemon.process() is None
        assert not daemon.stop()
        assert other.poll() is None
        other.kill()


def test_server_that_ends_at_once_is_one_sentence_with_its_last_words(daemon: Daemon) -> None:
    with pytest.raises(UserError, match="sleeper ended while it started; its log .* ends with: no space"):
        daemon.start([sys.executable, "-c", "print('no space')"], dict(os.environ), lambda: False)


def test_server_that_is_never_ready_is_not_left_running(daemon: Daemon) -> None:
    with pytest.raises(UserError, match="not ready within 1 s"):
        daemon.start(SLEEP, dict(os.environ), lambda: False, seconds=1)
    assert daemon.process() is None


def test_state_is_drawn_once_and_private(tmp_path: Path) -> None:
    first, second, other = State(tmp_path / "a"), State(tmp_path / "a"), State(tmp_path / "b")
    assert first["mlflow_password"] == second["mlflow_password"] != other["mlflow_password"]
    assert stat.S_IMODE((tmp_path / "a" / "state.json").stat().st_mode) == 0o600


def test_broken_state_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"state\.json is not JSON any more"):
        State(tmp_path)


def test_taken_port_is_passed_over_and_the_choice_remembered(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        holder.listen()
        taken = holder.getsockname()[1]
        State(tmp_path).on_free_ports({"one": taken, "two": taken}, lambda: None)
        chosen = dict(State(tmp_path).ports)
        assert taken < chosen["one"] < chosen["two"]
    State(tmp_path).on_free_ports({"one": taken, "two": taken}, lambda: None)
    assert State(tmp_path).ports == chosen


def test_stacks_with_ports_of_their_own_take_no_free_port_of_each_other(tmp_path: Path) -> None:
    usual = {"one": 23456, "two": 23456}
    for i in range(2):
        State(tmp_path / str(i), ports_from=50 * i).on_free_ports(usual, lambda: None)
    first, second = (State(tmp_path / str(i)).ports for i in range(2))
    assert max(first.values()) < 23506 <= min(second.values())


def test_port_taken_between_choice_and_start_gives_another_try(tmp_path: Path) -> None:
    state, tried = State(tmp_path), []
    with socket.socket() as rival:

        def start() -> None:
            tried.append(state.ports["one"])
            if len(tried) == 1:
                rival.bind((HOST, state.ports["one"]))
                rival.listen()
                raise UserError("address already in use")

        state.on_free_ports({"one": 23456}, start)
    assert len(tried) == 2 and tried[0] < tried[1]


def test_failure_that_is_not_the_ports_is_not_tried_again(tmp_path: Path) -> None:
    state, tried = State(tmp_path), []

    def start() -> None:
        tried.append(1)
        raise UserError("broken")

    with pytest.raises(UserError, match="broken"):
        state.on_free_ports({"one": 23456}, start)
    assert tried == [1]
