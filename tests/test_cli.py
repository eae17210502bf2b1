"""The command line as a user meets it: one sentence and exit code 2 for a mistake, before anything is trained."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adabert_core.errors import sentence_of

ROOT = Path(__file__).parents[1]
QUICKSTART = "pipelines/configs/quickstart.yaml"


def adabert(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "adabert_core.cli", *arguments], capture_output=True, text=True, cwd=ROOT)


def run_on(source: Path, output: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    values = [f"data.source={source}", "data.text=body", "data.label=stars", "tracking_uri=''", *settings]
    return adabert("run", "--config", QUICKSTART, "--output", str(output), *[part for v in values for part in ("--set", v)])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"body,stars\ngood film,good\nbad film\n", "line 3"),
        (b"body,grade\ngood film,good\n", "stars"),
        (b"body,stars\n" + b"".join(b"film %d,good\n" % i for i in range(40)), "good"),
        (b"body,stars\ngood \xff\xfe film,good\n", "line 2"),
        (b"", "rows.csv"),
    ],
    ids=["ragged", "missing column", "one class", "not utf-8", "empty"],
)
def test_bad_rows_are_one_sentence_and_exit_code_2(content: bytes, sentence: str, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_bytes(content)
    done = run_on(source, tmp_path / "run")
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("adabert: ")]
    assert sentence in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "finetune_teacher").exists()


def test_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    done = run_on(tmp_path / "rows.csv", tmp_path / "run", "search.betta=1")
    assert done.returncode == 2
    assert "search.beta?" in done.stderr


def test_unknown_teacher_is_one_sentence_before_any_training(tmp_path: Path, learnable_csv: Path) -> None:
    arguments = [f"data.source={learnable_csv}", f"teacher.model={tmp_path / 'nothing'}", "tracking_uri=''"]
    settings = [part for value in arguments for part in ("--set", value)]
    done = adabert("run", "--config", QUICKSTART, "--output", str(tmp_path / "run"), *settings)
    assert done.returncode == 2, done.stderr
    assert "teacher.model" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_unreachable_tracking_is_one_warning_and_the_stage_is_done(tmp_path: Path, learnable_csv: Path) -> None:
    arguments = ["--set", f"data.source={learnable_csv}", "--set", "tracking_uri=http://me:hidden@127.0.0.1:9"]
    done = adabert("prepare_data", "--config", QUICKSTART, *arguments, "--output", str(tmp_path / "rows"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the run goes on without it") == 1
    assert "http://127.0.0.1:9" in done.stderr
    assert "hidden" not in done.stderr + done.stdout
    assert json.loads((tmp_path / "rows" / "dataset.json").read_text())["labels"] == ["bad", "good"]


def test_report_and_predict_say_what_is_missing(tmp_path: Path) -> None:
    done = adabert("report", str(tmp_path))
    assert (done.returncode, "holds no report" in done.stderr) == (2, True)
    done = adabert("predict", "--model", str(tmp_path), "a film")
    assert (done.returncode, "holds no student" in done.stderr) == (2, True)


def test_doctor_finds_this_machine_fit(tmp_path: Path) -> None:
    done = adabert("doctor", "--checkpoint-uri", str(tmp_path / "checkpoints"))
    assert done.returncode == 0, done.stdout
    assert "ok    torch: 2.13.0" in done.stdout
    assert "FAIL" not in done.stdout


def test_doctor_fails_where_checkpoints_cannot_be_written_and_looks_for_the_environments_mlflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = adabert("doctor", "--checkpoint-uri", "/proc/nowhere")
    assert done.returncode == 2
    assert "FAIL  checkpoints" in done.stdout
    assert "note  tracking" in done.stdout
    assert "mlflow.db" not in done.stdout


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/nowhere/run"])
def test_output_where_no_folder_can_be_is_one_sentence(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here before")
    done = run_on(tmp_path / "rows.csv", tmp_path / place)
    assert done.returncode == 2
    assert done.stderr.startswith(f"adabert: --output {tmp_path / place} can be no run folder (")
    assert len(done.stderr.splitlines()) == 1


def test_stage_and_run_take_no_place_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    (tmp_path / "project" / "search").mkdir(parents=True)
    (tmp_path / "project" / "search" / "mine.py").write_text("x = 1")
    for command, place in (("prepare_data", "rows.csv"), ("prepare_data", "project"), ("run", "project")):
        words = [command, "--config", "smoke", "--set", f"data.source={tmp_path / 'rows.csv'}", "--output", str(tmp_path / place)]
        done = adabert(*words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "which would replace it: name another place" in done.stderr
    assert (tmp_path / "rows.csv").read_text() == "text,label\n"
    assert (tmp_path / "project" / "search" / "mine.py").read_text() == "x = 1"


def test_what_the_system_refuses_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        Path("/dev/full").write_text("x")
    assert sentence_of(caught.value).startswith("the disk is full")
    with pytest.raises(OSError, match="too long") as caught:
        (tmp_path / ("x" * 300)).write_text("")
    assert sentence_of(caught.value).startswith(f"{tmp_path}/xxx")
    assert sentence_of(FileNotFoundError(2, "No such file", "x")) == sentence_of(ValueError("x")) == ""
