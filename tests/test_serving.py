"""Text in, label out: the same answers whatever the batch, and the precision that the gate decided on."""

import json
import shutil

import numpy as np
import pytest
import torch
from test_export import EVERY_KIND

from adabert_core.export import FP32, INT8, export_int8, export_student
from adabert_core.register import pack_model
from adabert_core.serving import Predictor, padded
from adabert_core.student import AdaBertConfig, AdaBertForSequenceClassification
from adabert_core.tokens import Collator, Template, tokenize
from tests.conftest import sentences

TEXTS = [text for text, _ in sentences(70, seed=3)]


@pytest.fixture(scope="module", params=[False, True], ids=["single", "pair"])
def folder(request, tmp_path_factory, bert_folder):
    """A StudentDir with random weights, and a model that torch computes with."""
    from transformers import AutoTokenizer

    tokenizer, path = AutoTokenizer.from_pretrained(bert_folder), tmp_path_factory.mktemp("student")
    torch.manual_seed(0)
    settings = AdaBertConfig(
        vocab_size=len(tokenizer),
        channels=16,
        max_position_embeddings=12,
        genotype=json.loads(EVERY_KIND.to_json()),
        separator_id=tokenizer.sep_token_id if request.param else None,
        alignment=request.param,
        maxima=True,
        position_vectors=False,
        ngrams=not request.param,
        id2label={0: "bad", 1: "good"},
    )
    model = AdaBertForSequenceClassification(settings).eval()
    model.save_pretrained(path)
    tokenizer.model_max_length = 12
    tokenizer.save_pretrained(path)
    (path / "genotype.json").write_text(EVERY_KIND.to_json())
    (path / "parity.json").write_text(json.dumps({"int8": {"passed": True}}))
    export_student(model, path / FP32)
    template = Template.of(tokenizer, request.param)
    rows = Collator(tokenize(tokenizer, template, TEXTS, TEXTS if request.param else None, 12), template)
    export_int8(model, path / INT8, rows, np.arange(20))
    return path, model, rows, request.param


def test_answers_are_those_of_torch_one_by_one_and_in_batches(folder):
    path, model, rows, pair = folder
    texts = [(text, text) for text in TEXTS] if pair else TEXTS
    predictor = Predictor(path, precision="fp32")
    with torch.no_grad():
        expected = torch.cat([model(**rows(np.array([i]))).logits for i in range(len(TEXTS))]).softmax(1).numpy()
    together = predictor(texts)
    alone = [answer for text in texts for answer in predictor([text])]
    for found in (together, alone):
        np.testing.assert_allclose([list(answer["scores"].values()) for answer in found], expected, atol=1e-5)
        assert [answer["label"] for answer in found] == [("bad", "good")[best] for best in expected.argmax(1)]
        assert all(answer["score"] == max(answer["scores"].values()) for answer in found)
    assert predictor([]) == []


def test_precision_is_what_the_gate_decided_unless_asked_for(folder, tmp_path):
    path = folder[0]
    pack_model(path, tmp_path / "served")
    shutil.copytree(path, tmp_path / "failed")
    (tmp_path / "failed" / "parity.json").write_text(json.dumps({"int8": {"passed": False}}))
    pack_model(tmp_path / "failed", tmp_path / "failed_served")
    wanted = {path: "int8", tmp_path / "served": "int8", tmp_path / "failed": "fp32", tmp_path / "failed_served": "fp32"}
    assert {place: Predictor(place).precision for place in wanted} == wanted
    assert Predictor(tmp_path / "failed", precision="int8").precision == "int8"
    text = [(TEXTS[0], TEXTS[1])] if folder[3] else TEXTS[:1]
    scores = [Predictor(path, precision=precision)(text)[0]["score"] for precision in ("fp32", "int8", "auto")]
    assert scores[0] != scores[1] == scores[2]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    with pytest.raises(Exception, match="model_int8.onnx"):
        (tmp_path / "served" / "model_int8.onnx").unlink()
        Predictor(tmp_path / "served", precision="int8")


def test_padding_fills_behind_every_row():
    ids, mask = padded([[5], [6, 7, 8]])
    assert ids.tolist() == [[5, 0, 0], [6, 7, 8]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]


def test_texts_of_the_other_kind_are_refused(folder):
    predictor = Predictor(folder[0])
    wrong, said = ([TEXTS[0]], "pairs: give tuples") if folder[3] else ([(TEXTS[0], TEXTS[1])], "single texts: give strings")
    for asked in (predictor, predictor.tokenize):
        with pytest.raises(ValueError, match=f"^this student classifies {said}"):
            asked(wrong)
