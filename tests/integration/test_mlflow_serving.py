"""The registered student behind `mlflow models serve`, found by its alias; artifacts in S3, the registry in PostgreSQL."""

import json
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.request import Request, urlopen

from adabert_core.config_file import parse_section
from adabert_core.s3 import fetch, open_place
from adabert_core.serving import Predictor
from adabert_core.stages import run_stage
from adabert_core.storage import Checkpoints
from adabert_core.tracking import Tracker

TEXTS = ["a superb and charming film", "dull and awful", "the story was it"]


def post(port: int, rows: list[list[str]]) -> list[dict]:
    body = json.dumps({"dataframe_split": {"columns": ["text"], "data": rows}}).encode()
    request = Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["predictions"]


def test_registered_student_is_served_over_http_and_exported(
    undisturbed: Path, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    name, place = f"m-{uuid.uuid4().hex}", f"s3://adabert-exports/{uuid.uuid4().hex}"
    folders = {"dataset": "prepare_data", "student": "retrain", "benchmark": "benchmark"}
    config = parse_section("register", {"model_name": name, "min_retention": 0.0, "export_uri": place})
    tracker = Tracker(stack_environment["MLFLOW_TRACKING_URI"], "adabert", name, "test")
    inputs = {key: undisturbed / folder for key, folder in folders.items()}
    run_stage("register", config, inputs, tmp_path / "out", tracker=tracker, checkpoints=Checkpoints(None))
    decision = json.loads((tmp_path / "out" / "decision.json").read_text())
    expected = Predictor(undisturbed / "retrain")(TEXTS)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{name}@champion", "-p", str(port)]
    log = (tmp_path / "serve.log").open("w")
    server = subprocess.Popen([*command, "--host", "127.0.0.1", "--env-manager", "local"], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 90
        while True:
            try:
                found = post(port, [[text] for text in TEXTS])
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "serve.log").read_text()
                assert time.monotonic() < until, (tmp_path / "serve.log").read_text()
                time.sleep(0.5)
    finally:
        server.terminate()
        server.wait(30)
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [round(row["score"], 4) for row in found] == [round(row["score"], 4) for row in expected]

    assert decision["export"].startswith(f"{place}/")
    model = fetch(decision["export"], tmp_path / "exported")
    needed = {line.partition("==")[0] for line in (model / "requirements.txt").read_text().split()}
    assert needed == {"mlflow", "onnxruntime", "tokenizers", "numpy", "pandas"}
    import mlflow
    import pandas as pd

    answers = mlflow.pyfunc.load_model(str(model)).predict(pd.DataFrame({"text": TEXTS}))
    assert list(answers["label"]) == [row["label"] for row in expected]
    assert {key.rpartition("/")[2] for key in open_place(decision["export"]).keys()} >= {
        "MLmodel",
        "model.onnx",
        "tokenizer.json",
    }  # noqa: SIM118
