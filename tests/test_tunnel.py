"""--port-forward with a program in kubectl's place that really forwards: how it is called, that it ends, that it comes back."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp_api_actions import State
from kfp_api_server import Done

from adabert_core.errors import UserError
from pipelines.tunnel import Tunnel

FORWARD = """#!{python}
import asyncio, os, pathlib, sys
here = pathlib.Path(__file__).parent
(here / "arguments").write_text(" ".join(sys.argv[1:]))
(here / "pid").write_text(str(os.getpid()))
if (here / "refusal").exists():
    sys.exit((here / "refusal").read_text())

async def pipe(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def serve():
    async def connected(reader, writer):
        print("Handling connection for", port, flush=True)
        out, back = await asyncio.open_connection("127.0.0.1", {target})
        await asyncio.gather(pipe(reader, back), pipe(out, writer))
    server = await asyncio.start_server(connected, "127.0.0.1", int(sys.argv[-1].partition(":")[0] or 0))
    port = server.sockets[0].getsockname()[1]
    print(f"Forwarding from 127.0.0.1:{{port}} -> 8888", flush=True)
    await server.serve_forever()

asyncio.run(serve())
"""


@pytest.fixture
def kubectl(server: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder on the PATH in which the stand-in lies and leaves its arguments and its pid."""
    program = tmp_path / "kubectl"
    program.write_text(FORWARD.format(python=sys.executable, target=server.url.rpartition(":")[2]))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def is_running(kubectl: Path) -> bool:
    try:
        os.kill(int((kubectl / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_submit_goes_through_kubectl_and_ends_it(kubectl: Path, server: State, command: Callable[..., Done]) -> None:
    done = command("submit", "--port-forward", "ml-pipeline/kubeflow", "--wait", "--poll-seconds", "0.01")
    assert (done.code, done.out.splitlines()[-1]) == (0, "the run succeeded"), done.error
    assert len(server.runs) == 1
    asked = (kubectl / "arguments").read_text()
    assert asked == "port-forward --address 127.0.0.1 -n kubeflow service/ml-pipeline :8888"
    assert not is_running(kubectl)
    assert f"/#/runs/details/{server.runs[0]['run_id']}" in done.out
    assert "service/ml-pipeline-ui 8080:80" in done.out  # the link must not lead to a port that is closed by now


def test_tunnel_that_broke_comes_back_on_the_same_port(kubectl: Path) -> None:
    with Tunnel("ml-pipeline-ui:80/kubeflow") as tunnel:
        first, pid = tunnel.url, int((kubectl / "pid").read_text())
        tunnel.revive()
        assert int((kubectl / "pid").read_text()) == pid
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while int((kubectl / "pid").read_text()) == pid and time.monotonic() < deadline:
            tunnel.revive()
        assert tunnel.url == first
        assert (kubectl / "arguments").read_text().endswith(f"service/ml-pipeline-ui {first.rpartition(':')[2]}:80")
        assert is_running(kubectl)
    assert not is_running(kubectl)


def test_kubectl_that_refuses_is_one_sentence(kubectl: Path, command: Callable[..., Done]) -> None:
    (kubectl / "refusal").write_text('error: services "ml-pipeline" not found')
    done = command("submit", "--port-forward", "ml-pipeline/kubeflow")
    assert done.code == 2
    wanted = 'adabert: --port-forward ml-pipeline/kubeflow: kubectl could not (services "ml-pipeline" not found).'
    assert done.error.strip() == wanted


def test_no_kubectl_and_no_namespace_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs kubectl"), Tunnel("ml-pipeline/kubeflow"):
        pass
    with pytest.raises(UserError, match="SERVICE/NAMESPACE"):
        Tunnel("ml-pipeline")
