"""Tasks the whole way, from rows to a served answer: regression, multi-label, many classes; each run once, on few rows."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest

from adabert_core import registry
from adabert_core.config_file import load_run_config
from adabert_core.data.dataset import read_dataset
from adabert_core.new_rows import score_rows, summary
from adabert_core.report import load_report
from adabert_core.runner import run_all
from adabert_core.serving import Predictor
from adabert_core.target_rows import read_targets
from adabert_core.tasks import MultiLabel, Regression
from tests.conftest import BAD, GOOD, OTHER, ROBERTA_MARKS, save_roberta
from tests.whole_run import SMOKE, settings

UNKNOWN = 3  # the place of <unk> among ROBERTA_MARKS
TEXTS = ["good great lovely film", "bad dull ugly film"]
QUICK = ["search.trial_steps=0", "search.max_steps=15", "benchmark.seconds=0.02", "targets.augmented_rows=100"]
LONG = ["teacher.epochs=10", "teacher.max_steps=80", "retrain.epochs=40", "retrain.max_steps=100"]


def drawn(count: int, seed: int) -> list[tuple[str, int, int]]:
    """Texts with how many of their words are good, and how many bad."""
    rng = random.Random(seed)  # noqa: S311
    rows = []
    for i in range(count):
        good, bad = rng.randint(0, 3), rng.randint(0, 3)
        words = rng.sample(GOOD, good) + rng.sample(BAD, bad) + rng.choices(OTHER, k=rng.randint(2, 6))
        rng.shuffle(words)
        rows.append((" ".join([*words, OTHER[i % len(OTHER)]]), good, bad))
    return rows


def run(folder: Path, rows: list[tuple[str, object]], teacher: Path, *overrides: str) -> Path:
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "mark"), *rows])
    given = [value for value in settings(folder / "rows.csv", teacher) if value != "--set"]
    config = load_run_config(SMOKE, [*given, "data.label=mark", *QUICK, *LONG, *overrides])
    run_all(config, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    """Numbers with decimals, far from zero and wide, so that units that are lost on the way show."""
    rows = [(text, 500 + 40.5 * (good - bad)) for text, good, bad in drawn(300, seed=1)]
    return run(tmp_path_factory.mktemp("regression"), rows, bert_folder)


@pytest.fixture(scope="module")
def multilabel(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    rows = [(text, "|".join(["praise"] * (good > 1) + ["blame"] * (bad > 1))) for text, good, bad in drawn(300, seed=2)]
    stated = ("data.task=multilabel", "data.class_weights=balanced", "data.metric=macro_f1")
    return run(tmp_path_factory.mktemp("multilabel"), rows, bert_folder, *stated)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """110 classes, each told by a word of its own, in two scripts that no byte is enough for; every tenth text too long."""
    rng = random.Random(3)  # noqa: S311
    starts, ends = ("кра", "моло", "пере", "ново", "サク", "アオ", "ミズ", "タカ", "старо", "под", "ハル"), tuple("лнрткмпвсд")
    owns = [start + end * 2 for start in starts for end in ends]
    others = ["и", "это", "фильм", "очень", "の", "です", "映画", "тихо"]
    rows = []
    for i in range(12 * len(owns)):
        words = rng.choices(others, k=80 if i % 10 == 0 else rng.randint(2, 6))
        words.insert(rng.randint(0, 2), owns[i % len(owns)])
        rows.append((" ".join(words), f"класс {owns[i % len(owns)]}"))
    folder = tmp_path_factory.mktemp("many")
    return run(
        folder,
        rows,
        unigram_teacher(folder / "teacher", [text for text, _ in rows]),
        "retrain.max_steps=250",
        "retrain.gamma=0.2",
    )


def unigram_teacher(folder: Path, texts: list[str]) -> Path:
    """A RoBERTa with a SentencePiece-like tokenizer of its own, 64 tokens long."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=ROBERTA_MARKS, unk_token=ROBERTA_MARKS[UNKNOWN])
    tokenizer.train_from_iterator(texts, trainer)
    return save_roberta(tokenizer, folder)


def pyfunc(run: Path, folder: Path) -> dict[str, list]:
    """What the served model, as MLflow loads it, answers to TEXTS."""
    registry.save_model(run / "register" / "model", folder / "model")
    return registry.answers(folder / "model", TEXTS, None)


def test_regression_is_inferred_and_answers_in_the_users_units(regression: Path, tmp_path: Path) -> None:
    task = read_dataset(regression / "prepare_data").task
    assert isinstance(task, Regression)
    assert task.mean == pytest.approx(500, abs=10)
    assert task.std == pytest.approx(40.5 * np.sqrt(2 * 1.25), rel=0.15)
    report, page = load_report(regression)
    teacher, student = report["teacher"]["metrics"]["test"], report["student"]["metrics"]["test"]["onnx"]
    for found in (teacher, student):
        assert found["score"] == found["pearson"] > 0.6
        assert found["mse"] < 0.8 * task.std**2  # 500 off where the mean is lost, and 1 where the scale is
    assert report["retention"] == pytest.approx(student["pearson"] / teacher["pearson"])
    assert report["confusion"] == {"teacher": [], "student": []}
    assert "student" in page.read_text()
    high, low = (answer["value"] for answer in Predictor(regression / "retrain", precision="fp32")(TEXTS))
    assert high > 500 > low
    served = pyfunc(regression, tmp_path)
    assert served.keys() == {"value"}
    assert served["value"] == pytest.approx([high, low], abs=task.std / 4)  # perhaps in int8
    assert task.read(served) is not None


def test_regression_weighs_layers_by_gaussian_likelihood(regression: Path) -> None:
    known = json.loads((regression / "distill_targets" / "targets.json").read_text())
    labels = np.load(regression / "distill_targets" / "train" / "labels.npy")
    probes = np.load(regression / "distill_targets" / "train" / "probe_logits.npy")[: known["real_rows"], :, 0]
    assert np.isnan(labels[known["real_rows"] :]).all()
    real = labels[: known["real_rows"]]
    variance = ((probes - real[:, None]) ** 2).mean(0) / known["std"] ** 2
    expected = [-0.5 * np.log(2 * np.pi * v) - 0.5 for v in variance]
    assert known["probe_log_likelihood"] == pytest.approx(expected, rel=1e-4)
    assert known["probe_accuracy"][-1] > 0.6


def test_regression_student_is_a_hugging_face_model(regression: Path) -> None:
    from transformers import pipeline

    found = pipeline("text-classification", model=str(regression / "retrain"), device="cpu")(TEXTS[0])
    (value,) = [answer["value"] for answer in Predictor(regression / "retrain", precision="fp32")(TEXTS[:1])]
    assert found == [{"label": "mark", "score": pytest.approx(value, rel=1e-4)}]


def test_multilabel_gives_the_labels_above_their_own_thresholds(multilabel: Path, tmp_path: Path) -> None:
    dataset = read_dataset(multilabel / "prepare_data")
    assert isinstance(dataset.task, MultiLabel)
    assert dataset.labels == ["blame", "praise"]
    assert set(map(tuple, dataset.split("train").labels.tolist())) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    counts = dataset.split("train").labels.sum(0)
    assert dataset.task.class_weights == pytest.approx((len(dataset.split("train")) - counts) / counts)
    config = json.loads((multilabel / "retrain" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert len(config["thresholds"]) == 2
    report, _ = load_report(multilabel)
    for found in (report["teacher"]["metrics"]["test"], report["student"]["metrics"]["test"]["onnx"]):
        assert found["score"] == found["macro_f1"] > 0.5
        assert found.keys() == {"micro_f1", "macro_f1", "exact", "score"}
    known = read_targets(multilabel / "distill_targets").validation
    own = dataset.task.thresholds(known.labels, known.teacher_logits)
    scores = dataset.task.scores(known.labels, dataset.task.predictions(known.teacher_logits, own))
    assert report["teacher"]["metrics"]["validation"] == pytest.approx(scores)
    assert own != pytest.approx([0.5, 0.5])
    answers = Predictor(multilabel / "retrain", precision="fp32")(TEXTS)
    for answer in answers:
        levels = zip(answer["scores"].items(), config["thresholds"], strict=True)
        assert answer["labels"] == [label for (label, score), level in levels if score > level]
    assert answers[0]["scores"]["praise"] > answers[1]["scores"]["praise"]
    served = pyfunc(multilabel, tmp_path)
    assert served.keys() == {"labels", "scores"}
    predictions = dataset.task.read(served)
    assert predictions is not None
    assert predictions.shape == (2, 2)


def test_metric_that_was_chosen_is_what_everything_selects_by(multilabel: Path) -> None:
    for stage in ("finetune_teacher", "retrain"):
        metrics = json.loads((multilabel / stage / "manifest.json").read_text())["metrics"]
        assert metrics["validation_score"] == metrics["validation_macro_f1"] != metrics["validation_micro_f1"]
    report, _ = load_report(multilabel)
    served = report["student"]["metrics"]["test"]["int8" if report["student"]["int8"]["passed"] else "onnx"]
    assert json.loads((multilabel / "register" / "decision.json").read_text())["score"] == served["macro_f1"]


def test_many_classes_in_other_scripts_with_texts_that_are_cut(many: Path) -> None:
    report, _ = load_report(many)
    assert len(report["labels"]) == 110
    assert report["cut"]["tokens"] == 64
    assert min(report["cut"].values()) > 0
    words = read_targets(many / "distill_targets").train.rows.a
    assert (words.values == UNKNOWN).mean() < 0.01
    assert set(map(len, report["confusion"]["student"])) == {3}  # only the confusions that occur, so many classes would not fit
    assert report["student"]["metrics"]["test"]["onnx"]["score"] > 5 / 110
    assert "класс" in (many / "register" / "report.html").read_text(encoding="utf-8")
    (answer,) = Predictor(many / "retrain", precision="fp32")(["это очень кралл фильм"])
    assert answer["label"] in report["labels"]
    assert len(answer["scores"]) == 110


@pytest.mark.parametrize("kind", ["regression", "multilabel", "many"])
def test_evaluate_gives_the_reports_score_on_the_runs_own_test_rows(kind: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(kind)
    dataset = read_dataset(run / "prepare_data")
    texts = set(dataset.split("test").text_a)
    with (run.parent / "rows.csv").open(newline="") as file:
        rows = {row["text"]: row["mark"] for row in csv.DictReader(file) if row["text"] in texts}
    own = run.parent / "own_test.csv"
    with own.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "mark"), *rows.items()])
    found = score_rows(run, str(own), precision="fp32")
    assert found["seen"] == {"train": 0, "validation": 0, "test": len(texts)}
    assert (found["rows"], found["metric"]) == (len(texts), dataset.metric)
    assert found["test_score"] == pytest.approx(load_report(run)[0]["student"]["metrics"]["test"]["onnx"]["score"])
    assert found["score"] == pytest.approx(found["test_score"], abs=1e-4)
    assert summary(found).startswith(
        f"{dataset.metric.replace('_', ' ')} {found['score']:.4f} on {len(texts)} texts of {own} (fp32)"
    )
