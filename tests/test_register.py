import json

import pytest

from adabert_core.config_file import parse_section
from adabert_core.register import decide, pack_model


def report(score=0.90, retention=0.97, p50=2.0, int8=False, worse=0.002):
    def row(model, runtime, batch, length, milliseconds):
        return {"model": model, "runtime": runtime, "threads": 1, "batch": batch, "length": length, "p50_ms": milliseconds}

    return {
        "metric": "accuracy",
        "task": "classification",
        "data_version": "v1",
        "teacher": {"metrics": {"test": {"score": score / retention}}},
        "student": {
            "metrics": {"test": {"onnx": {"score": score}, "int8": {"score": score - worse}, "torch": {"score": 0.1}}},
            "int8": {"passed": int8},
        },
        "latency": [
            row("student", "onnx", 1, 32, 0.5),
            row("student", "onnx", 1, 128, p50),
            row("student", "onnx-int8", 1, 128, p50 / 4),
            row("student", "onnx", 32, 128, 50.0),
            row("student", "torch", 1, 128, 90.0),
            row("teacher", "onnx", 1, 128, 90.0),
        ],
    }


def gate(**settings):
    return parse_section("register", {"min_retention": 0.95, "margin": 0.005, **settings})


def test_first_student_that_keeps_enough_is_champion():
    assert decide(report(), gate(), None) == {
        "alias": "champion",
        "score": 0.90,
        "reasons": ["retention 0.970, needed 0.950"],
    }


@pytest.mark.parametrize(("int8", "score"), [(True, 0.898), (False, 0.90)])
def test_score_is_that_of_the_network_that_will_be_served(int8, score):
    assert decide(report(int8=int8), gate(), None)["score"] == pytest.approx(score)


@pytest.mark.parametrize(("retention", "alias"), [(0.95, "champion"), (0.9499, "challenger")])
def test_retention_at_the_bound_passes(retention, alias):
    assert decide(report(retention=retention), gate(), None)["alias"] == alias


@pytest.mark.parametrize(("p50", "alias"), [(3.0, "champion"), (3.01, "challenger")])
def test_latency_of_one_long_text_is_what_counts(p50, alias):
    decision = decide(report(p50=p50), gate(max_latency_ms=3.0), None)
    assert decision["alias"] == alias
    assert f"{p50:.2f} ms at length 128, allowed 3.00 ms" in decision["reasons"]


@pytest.mark.parametrize(("worse", "alias"), [(0.01, "champion"), (0.03, "challenger")])
def test_retention_is_that_of_the_network_that_will_be_served(worse, alias):
    decision = decide(report(int8=True, worse=worse), gate(), None)
    assert decision["alias"] == alias
    assert decision["reasons"] == [f"retention {0.97 * (0.9 - worse) / 0.9:.3f}, needed 0.950"]


def test_teacher_that_scores_nothing_is_no_reason_to_promote():
    found = report()
    found["teacher"]["metrics"]["test"]["score"] = 0.0
    assert decide(found, gate(), None)["reasons"] == ["retention 0.000, needed 0.950"]


@pytest.mark.parametrize(("task", "alias"), [("", "champion"), ("classification", "champion"), ("regression", "challenger")])
def test_champion_of_another_task_keeps_its_alias(task, alias):
    decision = decide(report(), gate(), None, "the champion, version 3, knows other labels (1, 2, 3)", task)
    assert decision["alias"] == alias
    if alias == "challenger":
        said = "the champion's task is regression, this student's classification: set data.task, or another model_name"
        assert decision["reasons"] == [said]


def test_latency_is_that_of_the_network_that_will_be_served():
    decision = decide(report(p50=4.0, int8=True), gate(max_latency_ms=3.0), None)
    assert decision["alias"] == "champion"
    assert "1.00 ms in int8 at length 128, allowed 3.00 ms" in decision["reasons"]


def test_latency_is_not_asked_for_unless_set():
    assert decide(report(p50=1e6), gate(), None)["alias"] == "champion"


@pytest.mark.parametrize(("held", "alias"), [(0.80, "champion"), (0.905, "champion"), (0.9051, "challenger")])
def test_student_may_be_worse_than_the_champion_by_the_margin(held, alias):
    decision = decide(report(), gate(), held)
    assert decision["alias"] == alias
    assert any("accuracy 0.9000, champion" in reason for reason in decision["reasons"])


def test_champion_that_cannot_be_compared_does_not_stand_in_the_way():
    decision = decide(report(), gate(), None, "the champion, version 3, is broken (OSError)")
    assert decision["alias"] == "champion"
    assert decision["reasons"][-1] == "the champion, version 3, is broken (OSError)"


def test_failed_gate_gives_every_reason_against_and_none_for():
    decision = decide(report(retention=0.5, p50=9.0), gate(max_latency_ms=3.0), 0.80)
    assert decision["alias"] == "challenger"
    assert decision["reasons"] == ["retention 0.500, needed 0.950", "9.00 ms at length 128, allowed 3.00 ms"]
    decision = decide(report(retention=0.5), gate(), 0.99)
    assert decision["reasons"] == [
        "retention 0.500, needed 0.950",
        "accuracy 0.9000, champion 0.9900 on the same rows, margin 0.0050",
    ]


def test_packed_model_holds_what_serving_needs(tmp_path):
    student = tmp_path / "student"
    (student / "onnx").mkdir(parents=True)
    (student / "onnx" / "model.onnx").write_bytes(b"onnx")
    (student / "onnx" / "model_int8.onnx").write_bytes(b"int8")
    (student / "parity.json").write_text(json.dumps({"int8": {"passed": True}}))
    (student / "config.json").write_text(json.dumps({"id2label": {str(i): f"class {i}" for i in range(12)}}))
    (student / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    for name in ("tokenizer.json", "genotype.json", "model.safetensors"):
        (student / name).write_text("{}")
    pack_model(student, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "serving.json").read_text())
    assert settings["max_length"] == 64
    assert settings["pair"] is False
    assert settings["labels"] == [f"class {i}" for i in range(12)]  # by number: not 0, 1, 10, 11, 2
    assert settings["int8"] is True
    assert (tmp_path / "model" / "model.onnx").read_bytes() == b"onnx"
    assert (tmp_path / "model" / "model_int8.onnx").read_bytes() == b"int8"
    assert not (tmp_path / "model" / "model.safetensors").exists()
