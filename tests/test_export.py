import json
import random
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from adabert_core.export import export_onnx, export_student, fold_batch_norms, onnx_logits, open_session
from adabert_core.search_space import Genotype, random_genotype
from adabert_core.student import AdaBertConfig, AdaBertForSequenceClassification
from adabert_core.tokens import Collator, Ragged, Template, TokenRows

SEP = 3
EVERY_KIND = Genotype(
    2,
    (
        (0, 2, "conv_3"),
        (1, 2, "dil_conv_5"),
        (0, 3, "max_pool_3"),
        (2, 3, "conv_7"),
        (1, 4, "avg_pool_3"),
        (3, 4, "identity"),
    ),
)


def student(genotype, separator_id=None, classes=3, seed=0):
    """Random weights and statistics, in evaluation mode."""
    torch.manual_seed(seed)
    config = AdaBertConfig(
        vocab_size=40,
        channels=8,
        max_position_embeddings=48,
        genotype=json.loads(genotype.to_json()),
        separator_id=separator_id,
        num_labels=classes,
    )
    model = AdaBertForSequenceClassification(config).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.running_mean, module.weight, module.bias):
                    nn.init.normal_(tensor)
                module.running_var.uniform_(0.5, 2.0)
    return model


def rows_of(pair, count=40, seed=0):
    rng = np.random.default_rng(seed)

    def texts(longest):
        return Ragged.of([rng.integers(4, 40, rng.integers(1, longest)).tolist() for _ in range(count)])

    template = Template((2,), (SEP,) if pair else (), (SEP,), 0, False)
    return Collator(TokenRows(texts(18), texts(26) if pair else None), template)


@torch.no_grad()
def expected_logits(model, rows):
    """Row by row, so that nothing is padded."""
    answers = [model(**rows(np.array([i]))).logits[0].numpy() for i in range(len(rows.lengths))]
    return np.stack(answers)


@pytest.mark.parametrize(
    ("genotype", "pair"),
    [(EVERY_KIND, False), (random_genotype(random.Random(1), 3), True), (random_genotype(random.Random(2), 1), True)],
    ids=["single", "pair_3_cells", "pair_1_cell"],
)
def test_onnx_answers_as_torch_at_any_batch_and_length(genotype, pair, tmp_path):
    model, rows = student(genotype, SEP if pair else None), rows_of(pair)
    export_onnx(fold_batch_norms(model), tmp_path / "onnx" / "model.onnx")
    session = open_session(tmp_path / "onnx" / "model.onnx", threads=1)
    expected = expected_logits(model, rows)
    assert expected.std(0).min() > 1e-3
    for batch_size in (1, 7, 40):
        np.testing.assert_allclose(onnx_logits(session, rows, batch_size), expected, atol=1e-4, rtol=0)
    padded = {name: nn.functional.pad(tensor, (0, 9)).numpy() for name, tensor in rows(np.array([0, 1])).items()}
    np.testing.assert_allclose(session.run(None, padded)[0], expected[:2], atol=1e-4, rtol=0)
    assert [given.name for given in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["model.onnx"]  # no weights beside it
    assert isinstance(session, onnxruntime.InferenceSession)


@torch.no_grad()
def test_folded_student_answers_as_the_trained_one_which_stays_whole():
    model, rows = student(EVERY_KIND), rows_of(pair=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_batch_norms(model)
    np.testing.assert_allclose(expected_logits(folded, rows), expected_logits(model, rows), atol=1e-5, rtol=0)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len([module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]) == 6
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_folding_a_student_in_training_uses_its_running_statistics():
    model, rows = student(EVERY_KIND), rows_of(pair=False)
    expected = expected_logits(model, rows)
    np.testing.assert_allclose(expected_logits(fold_batch_norms(model.train()), rows), expected, atol=1e-5, rtol=0)
    assert model.training


def test_exported_student_holds_no_path_of_this_machine(tmp_path):
    export_student(student(EVERY_KIND), tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    assert b".py" not in content
    assert str(Path(__file__).parents[1]).encode() not in content
    export_student(student(EVERY_KIND), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == content
