"""Each early warning where it must come and where it must not, and its way into the manifest."""

import json
import logging

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from adabert_core.config import DataConfig
from adabert_core.early_warnings import (
    behind_static,
    collapsed_cell,
    head_order,
    other_labels,
    over_budget,
    probes_at_chance,
    static_baseline,
    text_means,
    unmet_target,
)
from adabert_core.search_space import Genotype
from adabert_core.stages import stage_frame
from adabert_core.target_rows import Targets
from adabert_core.teacher import new_teacher
from adabert_core.tokens import Ragged, TokenRows
from adabert_core.tracking import Tracker

LABELS = np.array([0] * 60 + [1] * 40)


@pytest.mark.parametrize(
    ("own", "labels", "said"),
    [
        (("negative", "positive"), ["positive", "negative"], "put into the data's order"),
        (("NEGATIVE", "POSITIVE"), ["positive", "negative"], "put into the data's order"),
        (("entailment", "other"), ["0", "1"], "taken to be the same in this order"),
        (("NEGATIVE", "POSITIVE"), ["negative", "positive"], ""),
        (("bad", "good"), ["bad", "good"], ""),
        (("LABEL_0", "LABEL_1"), ["bad", "good"], ""),
        (("entailment", "neutral", "contradiction"), ["bad", "good"], ""),
    ],
)
def test_teachers_own_labels_are_compared_with_the_datas(own, labels, said):
    sentence = other_labels(own, labels)
    assert said in sentence
    assert bool(sentence) is bool(said)


def test_head_order_is_of_equal_names_only():
    assert head_order(("a", "b", "c"), ["c", "a", "b"]) == [2, 0, 1]
    assert head_order(("a", "A"), ["a", "A"]) == []
    assert head_order(("a", "b"), ["a", "c"]) == []


def test_head_of_a_teacher_with_the_classes_in_another_order_is_put_into_the_datas(bert_folder, tmp_path):
    model = BertForSequenceClassification.from_pretrained(bert_folder)
    model.config.id2label, model.config.label2id = {0: "good", 1: "bad"}, {"good": 0, "bad": 1}
    model.classifier.bias.data = torch.tensor([5.0, -5.0])  # always says good
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((bert_folder / name).read_bytes())
    same, other = (new_teacher(str(tmp_path), labels, False, 32) for labels in (["good", "bad"], ["bad", "good"]))
    text = same.tokenizer("a film", return_tensors="pt")
    with torch.inference_mode():
        answers = [teacher.model.eval()(**text).logits[0] for teacher in (same, other)]
    assert answers[0].argmax() == 0
    assert torch.equal(answers[1], answers[0].flip(0))
    assert other.model.config.id2label == {0: "bad", 1: "good"}
    assert other.own_labels == ("good", "bad")


def test_probes_are_at_chance_only_if_all_are():
    prior = 0.6 * np.log(0.6) + 0.4 * np.log(0.4)
    worse, better = np.array([prior - 0.1, prior - 0.01, prior - 0.2]), np.array([prior - 0.1, prior + 0.01, prior - 0.2])
    chance, told = np.array([0.5, 0.59, 0.5]), np.array([0.5, 0.61, 0.5])  # two standard errors of the mean recall are 0.102
    said = probes_at_chance(np.array([0.6, 0.64, 0.5]), worse, chance, LABELS)
    assert "0.640 at best, 0.600" in said  # a standard error is 0.049
    assert probes_at_chance(np.array([0.6, 0.66, 0.5]), worse, chance, LABELS) == ""
    assert probes_at_chance(np.array([0.6, 0.6, 0.5]), better, chance, LABELS) == ""  # never answers the rare class, but knows it
    assert probes_at_chance(np.array([0.6, 0.6, 0.5]), worse, told, LABELS) == ""  # answers it too often


def test_cell_without_a_convolution_is_collapsed():
    assert "pools and identities only" in collapsed_cell(Genotype(2, ((0, 2, "identity"), (1, 2, "max_pool_3"))))
    assert collapsed_cell(Genotype(2, ((0, 2, "identity"), (1, 2, "dil_conv_3")))) == ""
    assert collapsed_cell(Genotype(0, ())) == ""


def test_student_must_not_be_behind_the_static_baseline():
    assert "accuracy (0.700) is below that of logistic regression on mean word vectors (0.710)" in behind_static(
        0.70, 0.71, "accuracy"
    )
    assert behind_static(0.71, 0.71, "accuracy") == ""


def test_static_baseline_reads_labelled_rows_only(target_rows):
    vectors = {"word": torch.eye(8)}
    rng = np.random.default_rng(0)
    texts = [[int(label), *rng.integers(2, 8, 3).tolist()] for label in LABELS]  # the first token is the class
    train = target_rows(texts + [[0, 3]] * 50, LABELS.tolist() + [1] * 50)
    train.labels[len(texts) :] = -1  # augmented
    info = {"metric": "accuracy"}
    assert static_baseline(Targets(info, train, target_rows(texts, LABELS.tolist()), vectors)) == 1.0
    assert static_baseline(Targets(info, train, target_rows(texts, (1 - LABELS).tolist()), vectors)) == 0.0


def test_means_of_texts_and_of_pairs():
    words = np.array([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]], np.float32)
    a, b = Ragged.of([[0, 1], []]), Ragged.of([[2], [1, 1]])
    np.testing.assert_allclose(text_means(TokenRows(a, None), words), [[0.5, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(text_means(TokenRows(a, b), words)[0], [0.5, 1.0, 4.0, 4.0, 3.5, 3.0, 2.0, 4.0])


def test_warning_is_logged_once_and_kept_in_the_manifest(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="adabert_core")
    with stage_frame("prepare_data", DataConfig(), {}, tmp_path / "rows", Tracker("")) as frame:
        frame.warn("the rows look odd")
        frame.warn("")
    assert json.loads((tmp_path / "rows" / "manifest.json").read_text())["warnings"] == ["the rows look odd"]
    assert [record.getMessage() for record in caplog.records] == ["the rows look odd"]


def test_target_that_is_missed_is_told_part_by_part():
    row = {"p50_ms": 2.0, "length": 128, "speedup_vs_bert_base": 30.0}
    assert unmet_target({"latency_ms": 2.0, "speedup": 30.0, "min_retention": 0.97}, 0.97, row) == []
    assert unmet_target({"latency_ms": 0.0, "speedup": 0.0, "min_retention": 0.0}, 0.1, row) == []
    missed = unmet_target({"latency_ms": 1.5, "speedup": 40.0, "min_retention": 0.98}, 0.97, row)
    assert [sentence.partition(" ")[0] for sentence in missed] == ["target.min_retention", "target.latency_ms", "target.speedup"]
    assert over_budget(1.9, 2.0) == ""
    assert "within 2.00 ms here; the one taken needs 2.10" in over_budget(2.1, 2.0)
