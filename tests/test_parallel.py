"""Stages on two processes over Gloo: the same data seen once, the same mathematics, resume, errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adabert_core import parallel
from adabert_core.config_file import parse_section
from adabert_core.errors import UserError
from adabert_core.stages import run_stage
from adabert_core.storage import Checkpoints, FolderStore
from adabert_core.tracking import Tracker
from adabert_core.training import LengthBuckets


def stage(name: str, section: str, inputs: dict[str, Path], output: Path, **settings):
    settings = {"device": "cpu", "precision": "fp32", **settings} if name != "prepare_data" else settings
    checkpoints = Checkpoints(FolderStore(output.parent / "checkpoints"))
    config = parse_section(section, settings)
    return run_stage(name, config, inputs, output, tracker=Tracker(""), checkpoints=checkpoints)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, learnable_csv: Path) -> Path:
    output = tmp_path_factory.mktemp("rows") / "prepared"
    stage("prepare_data", "data", {}, output, source=str(learnable_csv))
    return output


@pytest.fixture(scope="module")
def calm_teacher(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    """The tiny BERT without dropout, so that two processes can be held against one."""
    folder = tmp_path_factory.mktemp("calm") / "bert"
    shutil.copytree(bert_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    return folder


@pytest.mark.parametrize("size", [2, 3])
def test_every_row_is_seen_once_per_epoch(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    batches = LengthBuckets(np.random.default_rng(0).integers(1, 30, 101), 8, seed=0)
    for step in range(batches.per_epoch):
        for rank in range(size):
            monkeypatch.setattr(parallel, "rank_and_size", lambda rank=rank: (rank, size))
            part = parallel.share(batches.batch(step))
            seen += part.tolist()
    assert sorted(seen) == list(range(101))


def test_a_batch_smaller_than_the_processes_goes_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "rank_and_size", lambda: (2, 3))
    assert parallel.share(np.array([7, 9])).tolist() == [7, 9]


@pytest.mark.parametrize(("steps", "found"), [((5, 5), "True"), ((5, 0), "False"), ((0, 5), "False")])
def test_processes_know_whether_they_found_the_same_checkpoint(steps: tuple[int, int], found: str, tmp_path: Path) -> None:
    code = (
        "import sys, torch, torch.distributed as dist; from adabert_core.parallel import agreed; rank = int(sys.argv[1]); "
        "dist.init_process_group('gloo', init_method=f'file://{sys.argv[3]}', rank=rank, world_size=2); "
        "print(agreed(int(sys.argv[2]), torch.device('cpu')))"
    )
    words = [[sys.executable, "-c", code, str(rank), str(step), str(tmp_path / "meet")] for rank, step in enumerate(steps)]
    started = [subprocess.Popen(word, stdout=subprocess.PIPE, text=True) for word in words]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == [found, found]


def test_what_one_process_measures_holds_for_all(tmp_path: Path) -> None:
    code = (
        "import sys, torch.distributed as dist; from adabert_core.parallel import measured_once; rank = int(sys.argv[1]); "
        "dist.init_process_group('gloo', init_method=f'file://{sys.argv[2]}', rank=rank, world_size=2); "
        "print(measured_once(lambda: {'ms': 1.5 + rank}))"
    )
    words = [[sys.executable, "-c", code, str(rank), str(tmp_path / "meet")] for rank in range(2)]
    started = [subprocess.Popen(word, stdout=subprocess.PIPE, text=True) for word in words]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == ["{'ms': 1.5}"] * 2
    assert parallel.measured_once(lambda: 3) == 3


def test_on_gpus_tensors_on_the_cpu_can_be_sent_too() -> None:
    config = torch.distributed.distributed_c10d.BackendConfig(torch.distributed.Backend(parallel.backends(on_gpu=True)))
    assert config.get_device_backend_map() == {"cpu": "gloo", "cuda": "nccl"}


def test_number_of_processes_follows_the_gpus_unless_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    wanted = [
        parallel.wanted_processes(parse_section("search", {"device": device, "processes": count}))
        for device, count in (("auto", 0), ("cuda", 2), ("cpu", 0), ("cpu", 2))
    ]
    assert wanted == [4, 2, 1, 2]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert parallel.wanted_processes(parse_section("search", {})) == 1


@pytest.mark.parametrize(("gpus", "count", "there"), [(4, 5, "4 GPUs"), (0, 3, "2 CPU cores")])
def test_more_processes_than_there_is_room_for_are_refused(
    gpus: int, count: int, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(UserError, match=rf"processes: {count} are more than the {there} of this machine"):
        parallel.wanted_processes(parse_section("search", {"processes": count}))


def test_two_processes_train_the_teacher_that_one_trains(rows: Path, calm_teacher: Path, tmp_path: Path) -> None:
    settings = {"model": str(calm_teacher), "max_steps": 12, "learning_rate": 0.003, "batch_size": 15}
    for count in (1, 2):
        stage("finetune_teacher", "teacher", {"dataset": rows}, tmp_path / str(count), processes=count, **settings)
    one, two = (load_file(tmp_path / count / "model" / "model.safetensors") for count in ("1", "2"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-3  # Adam's first steps enlarge rounding


@pytest.mark.integration
def test_whole_way_on_two_processes_learns_as_on_one(rows: Path, bert_folder: Path, tmp_path: Path) -> None:
    found = {}
    for count in (1, 2):
        run = tmp_path / str(count)
        teacher = {"model": str(bert_folder), "max_steps": 60, "learning_rate": 0.003}
        stage("finetune_teacher", "teacher", {"dataset": rows}, run / "teacher", processes=count, **teacher)
        inputs = {"dataset": rows, "teacher": run / "teacher"}
        stage("distill_targets", "targets", inputs, run / "targets", processes=count, augmented_rows=300)
        inputs = {"teacher": run / "teacher", "targets": run / "targets"}
        small = {"k_max": 2, "channels": 16, "epochs": 50, "max_steps": 60, "optimizer": "adamw", "learning_rate": 0.003}
        stage("search", "search", inputs, run / "search", processes=count, **small)
        inputs["search"] = run / "search"
        done = stage("retrain", "retrain", inputs, run / "retrain", processes=count, epochs=50, max_steps=150)
        found[count] = done.metrics["validation_score"]
        assert json.loads((run / "targets" / "targets.json").read_text())["augmented_rows"] == 300
        assert not list(run.glob(".*"))
    assert found[1] > 0.8
    assert abs(found[1] - found[2]) < 0.15


@pytest.mark.integration
def test_killed_on_two_processes_it_goes_on_and_ends_the_same(rows: Path, bert_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from adabert_core.config_file import parse_section\n"
        "from adabert_core.entry import show_log\n"
        "from adabert_core.stages import run_stage\n"
        "from adabert_core.storage import Checkpoints, FolderStore\n"
        "from adabert_core.tracking import Tracker\n"
        "if __name__ == '__main__':\n"
        "    show_log(sys.stdout)\n"
        "    rows, model, output = sys.argv[1:]\n"
        "    steps = {'max_steps': 250, 'epochs': 200}\n"
        "    config = parse_section('teacher', {'model': model, 'processes': 2, 'device': 'cpu', **steps})\n"
        "    checkpoints = Checkpoints(FolderStore(Path(output + '-checkpoints')), 0.3)\n"
        "    inputs = {'dataset': Path(rows)}\n"
        "    run_stage('finetune_teacher', config, inputs, Path(output), tracker=Tracker(''), checkpoints=checkpoints)\n"
    )
    script = tmp_path / "job.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}

    def start(output: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(rows), str(bert_folder), str(tmp_path / output)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    undisturbed = start("undisturbed")
    said, _ = undisturbed.communicate(timeout=120)
    assert undisturbed.returncode == 0, said
    killed = start("killed")
    until = time.monotonic() + 90
    while not [path for path in tmp_path.glob("killed-checkpoints/**/seal.json") if "/." not in str(path)]:  # not in the making
        assert killed.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    again = start("killed")
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "resumed at step" in said
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("undisturbed", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.integration
def test_a_users_mistake_on_two_processes_is_one_sentence(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="teacher.model .*nothing cannot be loaded"):
        stage("finetune_teacher", "teacher", {"dataset": rows}, tmp_path / "out", processes=2, model=str(tmp_path / "nothing"))
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_started_by_torchrun_the_first_process_writes_and_tracks(rows: Path, bert_folder: Path, tmp_path: Path) -> None:
    """As a TrainJob starts it, but for the number of nodes."""
    root = Path(__file__).parents[1]
    sets = [f"teacher.model={bert_folder}", "teacher.max_steps=10", "tracking_uri=''", "device=cpu", "precision=fp32"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    stage = [sys.executable, "-m", "adabert_core.cli", "finetune_teacher", "--config", "pipelines/configs/smoke.yaml"]
    words = [part for value in sets for part in ("--set", value)]
    places = ["--dataset", str(rows), "--output", str(tmp_path / "teacher")]
    done = subprocess.run([*command, *stage, *words, *places], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finetune_teacher: done") == 1
    assert (tmp_path / "teacher" / "manifest.json").is_file()
