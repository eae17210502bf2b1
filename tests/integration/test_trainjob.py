"""The teacher on several nodes: a TrainJob made over HTTP, checked against Trainer's own model, and carried out by torchrun."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from adabert_core.artifacts import read_manifest
from adabert_core.s3 import open_place
from components.finetune_teacher_on_nodes.trainjob import Nodes, finetune, job_object
from tests.whole_run import ROOT

NODES = Nodes(count=2, gpus=0, accelerator="nvidia.com/gpu", image="adabert-python:1")


class Cluster:
    """A Kubernetes API that knows TrainJobs only; what Trainer's pods would do, one torchrun of two processes does here."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict] = {}
        self.made = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        cluster, top = self, "/apis/trainer.kubeflow.org/v1alpha1/namespaces/adabert/trainjobs"

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path.split("?")[0] == top
                job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                checked = TrainerV1alpha1TrainJob.from_dict(job)
                assert checked is not None
                assert set(job["spec"]["trainer"]) <= set(checked.spec.trainer.to_dict())
                if job["metadata"]["name"] in cluster.jobs:
                    return self.answer(409, {"reason": "AlreadyExists"})
                cluster.jobs[job["metadata"]["name"]] = job
                cluster.made += 1
                threading.Thread(target=cluster.carry_out, args=(job,)).start()
                return self.answer(201, job)

            def do_GET(self) -> None:
                self.answer(200, cluster.jobs[self.path.rpartition("/")[2]])

            def do_DELETE(self) -> None:
                cluster.jobs.pop(self.path.rpartition("/")[2].split("?")[0])
                self.answer(200, {"status": "Success"})

            def answer(self, code: int, body: dict) -> None:
                content = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler

    def carry_out(self, job: dict) -> None:
        trainer = job["spec"]["trainer"]
        environment = {**os.environ, **{part["name"]: part["value"] for part in trainer["env"]}, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={trainer['numNodes']}"]
        done = subprocess.run([*command, *trainer["args"]], cwd=ROOT, env=environment, capture_output=True, text=True)
        kind = "Failed" if done.returncode else "Complete"
        condition = {"type": kind, "status": "True", "message": "a node failed", "reason": kind}
        job["status"] = {"conditions": [condition], "said": done.stderr}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster()
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": made.url}}],
        "users": [{"name": "test", "user": {"token": "t"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield made
    made.server.shutdown()


def call(undisturbed: Path, place: str, **changes: object) -> dict:
    config = {"model": str(undisturbed / "teacher"), "max_steps": 20, "device": "cpu", "precision": "fp32", **changes}
    shared = {"data_version": "v", "tracking_uri": "", "experiment": "adabert", "checkpoint_uri": place}
    return {"config": config, "seed": 0, **shared}


def test_teacher_comes_back_from_two_nodes_and_a_retry_makes_no_second_job(
    undisturbed: Path, cluster: Cluster, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    place, rows = f"s3://adabert-checkpoints/{uuid.uuid4().hex}", str(undisturbed / "prepare_data")
    arguments = (call(undisturbed, place), rows)
    first = threading.Thread(target=finetune, args=(*arguments, str(tmp_path / "first"), NODES, 3600))
    first.daemon = True  # the pod that is lost: it made the job and never sees its end
    first.start()
    while not cluster.jobs:
        assert first.is_alive()
        time.sleep(0.1)
    finetune(*arguments, str(tmp_path / "retry"), NODES, 0.5)
    assert cluster.made == 1
    assert cluster.jobs == {}
    manifest = read_manifest(tmp_path / "retry", "finetune_teacher")
    assert manifest.config["max_steps"] == 20
    assert (tmp_path / "retry" / "model" / "model.safetensors").is_file()
    assert not any("/dataset/" in key or "/teacher/" in key for key in open_place(place).keys())  # noqa: SIM118


def test_failed_job_is_one_sentence(
    undisturbed: Path, cluster: Cluster, stack_environment: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"s3://adabert-checkpoints/{uuid.uuid4().hex}"
    wrong = call(undisturbed, place, model=str(tmp_path / "nothing"))
    with pytest.raises(SystemExit) as ended:
        finetune(wrong, str(undisturbed / "prepare_data"), str(tmp_path / "out"), NODES, 0.5)
    assert ended.value.code == 2
    assert not (tmp_path / "out").exists()


def test_job_asks_for_one_process_per_gpu() -> None:
    job = job_object("name", {"seed": 1}, "s3://b-c/x", Nodes(3, 4, "nvidia.com/mig-1g.18gb", "adabert-python:1-cuda"))
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 4)
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/mig-1g.18gb"] == 4
    assert json.loads(trainer["env"][0]["value"])["teacher"] == "s3://b-c/x/teacher"
    assert TrainerV1alpha1TrainJob.from_dict(job).spec.trainer.num_nodes == 3
