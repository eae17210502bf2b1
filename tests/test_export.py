import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from adabert_core.export import INPUTS, export_int8, export_student, measured_ranges, onnx_logits, open_session, session_to_time
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
CONVOLUTIONS = Genotype(
    3,
    (
        (0, 2, "dil_conv_3"),
        (1, 2, "dil_conv_5"),
        (1, 3, "conv_3"),
        (2, 3, "conv_3"),
        (0, 4, "identity"),
        (1, 4, "conv_5"),
    ),
)
NO_CONVOLUTION = Genotype(
    2,
    (
        (0, 2, "max_pool_3"),
        (1, 2, "identity"),
        (0, 3, "avg_pool_3"),
        (2, 3, "max_pool_3"),
        (1, 4, "identity"),
        (3, 4, "avg_pool_3"),
    ),
)
NOTHING_INSIDE = Genotype(3, ((0, 2, "zero"), (1, 2, "zero"), (2, 3, "conv_3"), (2, 4, "identity"), (3, 4, "zero")))


def student(genotype, separator_id=None, classes=3, seed=0, vocabulary=40, alignment=True, **of_before):
    """Random weights and statistics, in evaluation mode; `of_before` is what earlier students have otherwise."""
    torch.manual_seed(seed)
    config = AdaBertConfig(
        vocab_size=vocabulary,
        channels=8,
        max_position_embeddings=48,
        genotype=json.loads(genotype.to_json()),
        separator_id=separator_id,
        num_labels=classes,
        alignment=alignment and separator_id is not None,
        **{"maxima": True, "position_vectors": False, "ngrams": separator_id is None, **of_before},
    )
    model = AdaBertForSequenceClassification(config).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.running_mean, module.weight, module.bias):
                    nn.init.normal_(tensor)
                module.running_var.uniform_(0.5, 2.0)
        for name, tensor in model.named_parameters():
            if "node_weights" in name or "depth_weights" in name:
                nn.init.normal_(tensor)
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
    [
        (EVERY_KIND, False),
        (random_genotype(random.Random(1), 3), True),
        (random_genotype(random.Random(2), 1), True),
        (CONVOLUTIONS, False),
        (NO_CONVOLUTION, False),
        (NO_CONVOLUTION, True),
        (NOTHING_INSIDE, False),
        (NOTHING_INSIDE, True),
        (Genotype(0, ()), False),
        (Genotype(0, ()), True),
    ],
    ids=[
        *("single", "pair_3_cells", "pair_1_cell", "convolutions", "pools", "pair_pools", "empty_nodes", "pair_empty_nodes"),
        *("no_cell", "pair_no_cell"),
    ],
)
def test_onnx_answers_as_torch_at_any_batch_and_length(genotype, pair, tmp_path):
    model, rows = student(genotype, SEP if pair else None), rows_of(pair)
    export_student(model, tmp_path / "onnx" / "model.onnx")
    session = open_session(tmp_path / "onnx" / "model.onnx", threads=1)
    expected = expected_logits(model, rows)
    assert expected.std(0).min() > 1e-3
    for batch_size in (1, 7, 40):
        np.testing.assert_allclose(onnx_logits(session, rows, batch_size), expected, atol=1e-5, rtol=0)
    padded = {name: nn.functional.pad(tensor, (0, 9)).numpy() for name, tensor in rows(np.array([0, 1])).items()}
    np.testing.assert_allclose(session.run(None, padded)[0], expected[:2], atol=1e-5, rtol=0)
    unmarked = torch.tensor([[2, 7, 8, 9, 0, 0]])  # a pair without a separator is a text and an empty one
    mask = (unmarked > 0).long()
    found = session.run(None, {"input_ids": unmarked.numpy(), "attention_mask": mask.numpy()})[0]
    np.testing.assert_allclose(found, model(unmarked[:, :4], mask[:, :4]).logits.detach().numpy(), atol=1e-5, rtol=0)
    assert [given.name for given in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["model.onnx"]  # no weights beside it
    assert isinstance(session, onnxruntime.InferenceSession)


def test_a_text_without_any_token_gets_torchs_answer(tmp_path):
    model, ids = student(EVERY_KIND), np.zeros((1, 5), np.int64)
    export_student(model, tmp_path / "model.onnx")
    found = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"input_ids": ids, "attention_mask": ids})[0]
    expected = model(torch.from_numpy(ids), torch.from_numpy(ids)).logits.detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("part", ["maxima", "ngrams"])
def test_students_of_before_there_were_maxima_or_ngrams_are_exported_without(part, tmp_path):
    rows, answers = rows_of(pair=False), []
    for has in (False, True):
        model = student(CONVOLUTIONS, **{part: has})
        export_student(model, tmp_path / "model.onnx")
        answers.append(onnx_logits(open_session(tmp_path / "model.onnx", threads=1), rows, 7))
        np.testing.assert_allclose(answers[-1], expected_logits(model, rows), atol=1e-5, rtol=0)
    assert np.abs(answers[1] - answers[0]).max() > 1e-2


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
def test_students_with_position_vectors_are_exported_with_them(pair, tmp_path):
    rows, answers = rows_of(pair), []
    for old in (False, True):
        model = student(CONVOLUTIONS, SEP if pair else None, position_vectors=old)
        export_student(model, tmp_path / "model.onnx")
        answers.append(onnx_logits(open_session(tmp_path / "model.onnx", threads=1), rows, 7))
        np.testing.assert_allclose(answers[-1], expected_logits(model, rows), atol=1e-5, rtol=0)
    assert np.abs(answers[1] - answers[0]).max() > 1e-2


@pytest.mark.parametrize("genotype", [EVERY_KIND, CONVOLUTIONS, NO_CONVOLUTION], ids=["every_kind", "convolutions", "pools"])
@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
def test_int8_answers_nearly_as_fp32_and_padding_changes_nothing(genotype, pair, tmp_path):
    model, rows = student(genotype, SEP if pair else None), rows_of(pair)
    export_int8(model, tmp_path / "model.onnx", rows, np.arange(40))
    session = open_session(tmp_path / "model.onnx", threads=1)
    expected, alone = expected_logits(model, rows), onnx_logits(session, rows, 1)
    assert 1e-5 < np.abs(alone - expected).max() < 0.06 * expected.std()
    for batch_size in (7, 40):
        np.testing.assert_allclose(onnx_logits(session, rows, batch_size), alone, atol=1e-6, rtol=0)
    padded = {name: nn.functional.pad(tensor, (0, 9)).numpy() for name, tensor in rows(np.array([0, 1])).items()}
    np.testing.assert_allclose(session.run(None, padded)[0], alone[:2], atol=1e-6, rtol=0)


def test_int8_file_is_small_and_the_same_every_time(tmp_path):
    model, rows = student(EVERY_KIND, vocabulary=4000), rows_of(pair=False)
    for name in ("model_int8.onnx", "again.onnx"):
        export_int8(model, tmp_path / name, rows, np.arange(20))
    export_student(model, tmp_path / "model.onnx")
    content = (tmp_path / "model_int8.onnx").read_bytes()
    assert (tmp_path / "again.onnx").read_bytes() == content
    assert len(content) < 0.6 * len((tmp_path / "model.onnx").read_bytes())


def test_ranges_are_the_greatest_values_that_real_rows_reach():
    model, rows = student(CONVOLUTIONS), rows_of(pair=False)
    found = measured_ranges(model, rows, np.arange(40))
    seen = []
    handle = model.network.embedding.register_forward_hook(lambda *call: seen.append((call[2].max(), call[2].abs().max())))
    expected_logits(model, rows)
    handle.remove()
    assert found["embedding"] == pytest.approx(max(float(greatest) for greatest, _ in seen), rel=1e-5)
    assert found["ngrams.span"] == pytest.approx(2 * max(float(farthest) for _, farthest in seen), rel=1e-5)
    assert set(found) == {"embedding", "ngrams.span", "cell1.node2", "cell1", "cell2.node2", "cell2", "cell3.node2"}


def test_exported_student_holds_no_path_of_this_machine(tmp_path):
    export_student(student(EVERY_KIND), tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    assert b".py" not in content
    assert str(Path(__file__).parents[1]).encode() not in content
    export_student(student(EVERY_KIND), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == content


class TracedWrong(nn.Module):
    """A classifier of which tracing makes a wrong graph."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Embedding(50, 2)

    def forward(self, input_ids, attention_mask):
        states = self.weights(input_ids) * attention_mask.unsqueeze(-1)
        return SimpleNamespace(logits=states.sum(1) * (2 if torch.jit.is_tracing() else 1))


@pytest.mark.parametrize("family", ["bert", "roberta", "traced wrong"])
def test_session_to_time_gives_torchs_logits_for_any_batch_and_length(family, request):
    if family == "traced wrong":
        model, inputs = TracedWrong().eval(), INPUTS
    else:
        folder = request.getfixturevalue(f"{family}_folder")
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        inputs = (*INPUTS, "token_type_ids") if family == "bert" else INPUTS
    session = session_to_time(model, inputs, threads=1)
    for shape in ((1, 9), (5, 31)):
        ids = torch.randint(5, 20, shape)
        batch = {name: ids if name == "input_ids" else torch.full_like(ids, int("mask" in name)) for name in inputs}
        with torch.inference_mode():
            expected = model(**batch).logits.numpy()
        found = session.run(None, {given.name: batch[given.name].numpy() for given in session.get_inputs()})[0]
        assert np.allclose(found, expected, atol=1e-5)
