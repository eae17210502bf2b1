"""The whole way on a few hundred rows with a 2-layer teacher: in process, through the local DAG, and killed on the way."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file

from adabert_core.cli import cli
from adabert_core.config_file import load_run_config
from adabert_core.data.dataset import read_dataset
from adabert_core.errors import UserError
from adabert_core.new_rows import score_rows
from adabert_core.search import trial_settings
from adabert_core.search_space import PRIMITIVES, Genotype, random_cells
from adabert_core.stages import STAGES, run_stage
from adabert_core.storage import Checkpoints
from adabert_core.supernet import Supernet
from adabert_core.tracking import Tracker
from tests.whole_run import RESULTS, ROOT, SMOKE, command, digests, predictions, settings, test_metrics


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory, learnable_csv: Path, bert_folder: Path) -> Path:
    """An undisturbed `adabert run` with tracking, whose stages are kept in the folder `cache` beside it."""
    output = tmp_path_factory.mktemp("runs") / "undisturbed"
    arguments = settings(learnable_csv, bert_folder, f"sqlite:///{output.parent}/mlflow.db")
    arguments += ["--stage-cache", str(output.parent / "cache")]
    done = subprocess.run(command(output, *arguments), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "The student keeps" in done.stdout
    return output


def test_run_leaves_one_whole_directory_per_stage_and_a_report(in_process: Path) -> None:
    stages = ("prepare_data", "finetune_teacher", "distill_targets", "search", "retrain", "benchmark", "register")
    for stage in stages:
        manifest = json.loads((in_process / stage / "manifest.json").read_text())
        assert manifest["stage"] == stage
        assert manifest["wall_seconds"] > 0
        assert 0 < manifest["peak_memory_bytes"] < 4e9
    report = json.loads((in_process / "benchmark" / "report.json").read_text())
    assert report["student"]["parameters"] < report["teacher"]["parameters"] * 20
    timed = {(row["model"], row["runtime"]) for row in report["latency"] if row["runtime"] != "torch-cuda"}
    assert timed == {("student", "onnx-int8"), *((m, r) for m in ("student", "teacher") for r in ("onnx", "torch"))}
    int8, headline = [row for row in report["latency"] if row["runtime"] == "onnx-int8"]
    assert (int8["length"], headline["length"]) == (32, 64)  # as the preset asks, and as much as the teacher reads
    assert {key for key in int8 if key.startswith("speedup")} == {"speedup_vs_teacher_fp32"}
    assert report["student"]["bytes_on_disk"]["int8"] < report["student"]["bytes_on_disk"]["fp32"]
    assert report["student"]["metrics"]["test"].keys() == {"onnx", "int8", "torch"}
    retrained = json.loads((in_process / "retrain" / "manifest.json").read_text())["metrics"]
    assert retrained["int8_passed"] == report["student"]["int8"]["passed"]
    assert retrained["int8_same_answer"] > 0.9
    assert (in_process / "benchmark" / "report.html").stat().st_size > 10_000
    assert not (in_process / "checkpoints").exists()


def test_second_run_computes_nothing(in_process: Path, learnable_csv: Path, bert_folder: Path) -> None:
    before = {stage: (in_process / stage).stat().st_mtime_ns for stage in RESULTS}
    arguments = settings(learnable_csv, bert_folder, f"sqlite:///{in_process.parent}/mlflow.db")
    done = subprocess.run(command(in_process, *arguments), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert {stage: (in_process / stage).stat().st_mtime_ns for stage in RESULTS} == before


def test_tracking_has_a_parent_a_child_per_stage_and_a_model_that_answers(in_process: Path) -> None:
    import mlflow

    uri = f"sqlite:///{in_process.parent}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'adabert'")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    children = {run.data.tags["adabert.stage"]: run for run in runs if run is not parent}
    assert {"finetune_teacher", "distill_targets", "search", "retrain", "benchmark", "register"} <= set(children)
    search = children["search"]
    assert search.data.params["k_max"] == "2"
    for name in ("loss", "loss_labels", "loss_probes", "loss_final", "loss_efficiency", "tau", "alpha_entropy", "expected_depth"):
        assert len(client.get_metric_history(search.info.run_id, name)) >= 1, name
    kept = {f.path for f in client.list_artifacts(children["benchmark"].info.run_id)}
    assert {"report.html", "report.json", "cell.png", "scatter.png"} <= kept
    assert "report.html" in {f.path for f in client.list_artifacts(parent.info.run_id)}
    figures = {"test_score", "teacher_test_score", "retention", "parameters_m", "student_ms", "speedup_vs_teacher"}
    assert parent.data.metrics.keys() == figures
    version = client.get_model_version_by_alias("adabert-smoke", "champion")
    for name in ("task", "metric", "data_version", "teacher", "timed", "verdict"):
        assert parent.data.tags[name] == version.tags[name], name
    assert parent.data.tags["verdict"] == "champion"
    assert "| student |" in parent.data.tags["mlflow.note.content"] == version.description
    assert client.get_registered_model("adabert-smoke").description.endswith(version.description)
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model("models:/adabert-smoke@champion")
    import pandas as pd

    answers = model.predict(pd.DataFrame({"text": ["a superb and charming film", "dull and awful"]}))
    assert list(answers["label"]) == predictions(in_process, "a superb and charming film", "dull and awful")


@pytest.mark.integration
def test_run_in_another_folder_takes_the_kept_stages_and_says_so(
    in_process: Path, tmp_path: Path, learnable_csv: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADABERT_STAGE_CACHE", str(in_process.parent / "cache"))
    arguments = settings(learnable_csv, bert_folder, f"sqlite:///{in_process.parent}/mlflow.db")
    done = subprocess.run(command(tmp_path / "second", *arguments), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\w+): taken from", done.stderr) == list(RESULTS)
    assert not set(RESULTS) & set(re.findall(r"(\w+): started", done.stderr))
    assert digests(tmp_path / "second") == digests(in_process)
    assert test_metrics(tmp_path / "second") == test_metrics(in_process)
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{in_process.parent}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'adabert'")
    runs = client.search_runs([experiment.experiment_id])
    taken = [run.data.tags for run in runs if "adabert.finetune_teacher.from" in run.data.tags]
    assert sorted(tags.get("adabert.stage", "parent") for tags in taken) == ["finetune_teacher", "parent"]


def test_student_loads_as_a_hugging_face_model(in_process: Path) -> None:
    code = (
        "import sys, adabert_core; from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline\n"
        "print(pipeline('text-classification', model=sys.argv[1])('a superb film')[0]['label'])\n"
        "model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "logits = model(**tokenizer('a superb film', return_tensors='pt')).logits\n"
        "print(model.config.id2label[int(logits.argmax())])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(in_process / "retrain")], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == 2 * predictions(in_process, "a superb film")


def test_search_is_narrower_than_its_student(in_process: Path) -> None:
    widths = {}
    for stage, file, name in (
        ("search", "supernet", "distilled.network.embedding.word.weight"),
        ("retrain", "model", "network.embedding.word.weight"),
    ):
        with safe_open(in_process / stage / f"{file}.safetensors", "np") as tensors:
            widths[stage] = tensors.get_slice(name).get_shape()[1]
    assert widths == {"search": 16, "retrain": 32}  # search.proxy_channels and search.channels of the smoke preset


def test_alpha_rests_while_the_supernet_warms_up(in_process: Path) -> None:
    manifest = json.loads((in_process / "search" / "manifest.json").read_text())
    trace = json.loads((in_process / "search" / "trace.json").read_text())
    for figure, share in (("alpha_entropy", "alpha_warmup_fraction"), ("expected_depth", "depth_warmup_fraction")):
        starts = int(manifest["config"][share] * manifest["metrics"]["steps"])  # the step whose gradient is the first to count
        resting, moving = ([p[figure] for p in trace if (p["step"] <= starts) is rests] for rests in (True, False))
        assert len(resting) > 1
        assert len(set(resting)) == 1
        assert resting[0] not in moving


def test_words_that_are_not_trained_stay_as_the_teacher_gave_them(
    in_process: Path, tmp_path: Path, learnable_csv: Path, bert_folder: Path
) -> None:
    untrained = ["search.train_words=false", "search.trial_steps=0", "retrain.train_words=false"]
    config = load_run_config(SMOKE, [*settings(learnable_csv, bert_folder)[1::2], *untrained])
    trial = trial_settings(replace(config.search, trial_steps=5))
    assert (trial.train_words, trial.min_steps, trial.max_steps) == (False, 5, 5)
    folders = {"teacher": in_process / "finetune_teacher", "targets": in_process / "distill_targets"}
    folders["search"] = tmp_path / "search"
    given = load_file(folders["targets"] / "vectors.safetensors")["word"]
    for stage, file, name in (
        ("search", "supernet", "distilled.network.embedding.word.weight"),
        ("retrain", "model", "network.embedding.word.weight"),
    ):
        inputs = {key: folders[key] for key in STAGES[stage].inputs}
        run_stage(stage, getattr(config, stage), inputs, tmp_path / stage, tracker=Tracker(""), checkpoints=Checkpoints(None))
        table = load_file(tmp_path / stage / f"{file}.safetensors")[name]
        torch.testing.assert_close(table[:, : given.shape[1]], given[:, : table.shape[1]], rtol=0, atol=0)
        trained = load_file(in_process / stage / f"{file}.safetensors")[name]
        assert (trained - table).abs().max() > 1e-3


@pytest.mark.parametrize(("trial_steps", "warned"), [(0, True), (2, False)])
def test_a_cell_of_pools_is_a_collapse_unless_trials_chose_it(
    trial_steps: int,
    warned: bool,
    in_process: Path,
    tmp_path: Path,
    learnable_csv: Path,
    bert_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Supernet, "_favoured", lambda self, flat: Genotype.parse("1 x 0>2 identity, 1>2 max_pool_3"))
    changed = [f"search.trial_steps={trial_steps}", "search.trial_cells=1", "search.max_steps=2"]
    config = load_run_config(SMOKE, [*settings(learnable_csv, bert_folder)[1::2], *changed]).search
    inputs = {"teacher": in_process / "finetune_teacher", "targets": in_process / "distill_targets"}
    run_stage("search", config, inputs, tmp_path / "search", tracker=Tracker(""), checkpoints=Checkpoints(None))
    warnings = json.loads((tmp_path / "search" / "manifest.json").read_text())["warnings"]
    assert ["pools and identities only" in warning for warning in warnings] == [True] * warned


def test_control_draws_cells_by_the_seed_of_the_run(
    in_process: Path, tmp_path: Path, learnable_csv: Path, bert_folder: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for stage in ("prepare_data", "finetune_teacher", "distill_targets", "search"):
        (run / stage).symlink_to(in_process / stage)
    config = load_run_config(SMOKE, [*settings(learnable_csv, bert_folder)[1::2], "seed=5"])
    inputs = {key: run / folder for key, folder in STAGES["retrain"].inputs.items()}
    run_stage("retrain", config.retrain, inputs, run / "retrain", tracker=Tracker(""), checkpoints=Checkpoints(None))
    done = CliRunner().invoke(cli, ["control", str(run), "--cells", "1"])
    assert done.exit_code == 0, done.output
    assert "of 1 random cells on the test split" in done.output
    (file,) = (run / "control").iterdir()
    searched, drawn = json.loads(file.read_text())["rows"]
    table = json.loads((run / "search" / "costs.json").read_text())["costs"]
    expected = random_cells(Genotype.load(run / "search" / "genotype.json"), [table[name] for name in PRIMITIVES], 1, seed=5)
    assert (file.name, drawn["cell"]) == ("control-5.json", str(expected[0]))
    assert searched["validation"] == json.loads((run / "retrain" / "manifest.json").read_text())["metrics"]["validation_score"]
    assert drawn["cost"] >= searched["cost"]


def test_local_dag_gives_the_same_genotype_weights_and_metrics(
    in_process: Path, tmp_path: Path, learnable_csv: Path, bert_folder: Path
) -> None:
    output = tmp_path / "dag"
    arguments = ["local", "--no-plan", "--config", str(SMOKE), "--output", str(output), *settings(learnable_csv, bert_folder)]
    done = subprocess.run([sys.executable, "-m", "pipelines.run", *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(output) == digests(in_process)
    assert test_metrics(output) == test_metrics(in_process)


@pytest.mark.integration
@pytest.mark.parametrize("stage", ["finetune_teacher", "retrain"])
def test_killed_run_started_again_ends_with_the_same_result(
    stage: str, in_process: Path, tmp_path: Path, learnable_csv: Path, bert_folder: Path
) -> None:
    output = tmp_path / "killed"
    arguments = [*settings(learnable_csv, bert_folder), "--checkpoint-seconds", "0"]
    process = subprocess.Popen(command(output, *arguments), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT)
    kill_in(process, output, stage)
    assert not (output / stage / "manifest.json").exists()
    again = subprocess.run(command(output, *arguments), capture_output=True, text=True, cwd=ROOT)
    assert again.returncode == 0, again.stderr
    assert "resumed at step" in again.stderr
    assert digests(output) == digests(in_process)
    assert test_metrics(output) == test_metrics(in_process)


def kill_in(process: subprocess.Popen[bytes], output: Path, stage: str) -> None:
    """Kills -9 as soon as the stage has left its third whole checkpoint or so; one that is being written does not count."""
    seen: set[str] = set()
    for _ in range(60_000):
        for folder, below, files in os.walk(output / "checkpoints" / stage):  # minds no folder that goes away meanwhile
            below[:] = [name for name in below if not name.startswith(".")]
            if "seal.json" in files:
                with contextlib.suppress(FileNotFoundError):
                    seen.add((Path(folder) / "seal.json").read_text())
        if len(seen) >= 3:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    raise AssertionError("no checkpoint appeared")


def test_evaluate_tells_classes_apart_and_knows_what_was_trained_on(in_process: Path, tmp_path: Path) -> None:
    train = read_dataset(in_process / "prepare_data").split("train")
    names = read_dataset(in_process / "prepare_data").labels
    rows = [(text, names[label]) for text, label in zip(train.text_a[:30], train.labels[:30], strict=True)]
    (tmp_path / "new.csv").write_text(
        "\n".join(["body,stars", *(f"{text},{label}" for text, label in rows), "good fresh words,good"])
    )
    words = [sys.executable, "-m", "adabert_core.cli", "evaluate", in_process, "--data", tmp_path / "new.csv"]
    done = subprocess.run([*words, "--text", "body", "--label", "stars"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["rows"], found["seen"]) == (31, {"train": 30, "validation": 0, "test": 0})
    right = sum(found["confusion"][i][i] for i in range(2))
    assert found["scores"]["accuracy"] == pytest.approx(right / 31)
    given = [label for _, label in rows] + ["good"]
    assert [sum(row) for row in found["confusion"]] == [given.count(name) for name in names]
    assert "of these texts the run had 30 in train" in done.stdout
    assert "recall" in done.stdout


@pytest.mark.parametrize(
    ("content", "text", "sentence"),
    [
        ("body,stars\na,good\n", [], "did you mean --text="),
        (
            "text,label\nfine,good\nugly,great\n",
            [],
            r"new.csv, line 3: the label 'great' is none that the student knows \(bad, good\)",
        ),
        ("text,label\nfine,good\n", ["text", "label"], "^--text: .* was trained on single texts, name one"),
        ("text,label\n,good\n", [], "line 2: the text in column 'text' is empty"),
    ],
)
def test_rows_that_cannot_be_evaluated_are_one_sentence(
    content: str, text: list[str], sentence: str, in_process: Path, tmp_path: Path
) -> None:
    (tmp_path / "new.csv").write_text(content)
    with pytest.raises(UserError, match=sentence):
        score_rows(in_process, str(tmp_path / "new.csv"), text)
    with pytest.raises(UserError, match="^--data .*: no such file"):
        score_rows(in_process / "retrain", str(tmp_path / "none.csv"))
