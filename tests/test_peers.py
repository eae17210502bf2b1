"""Peers answer like good students: padding changes nothing, they can learn, and ONNX says what torch says."""

import numpy as np
import pytest
import torch

from adabert_core.config import RetrainConfig
from adabert_core.distillation import start_from_teacher
from adabert_core.export import export_student, onnx_logits, open_session
from adabert_core.peers import ENCODERS, TRANSFORMERS
from adabert_core.runtime import make_accelerator
from adabert_core.search_space import Genotype
from adabert_core.storage import Checkpoints
from adabert_core.student import AdaBertConfig, AdaBertForSequenceClassification
from adabert_core.student_training import network_logits, train_student
from adabert_core.target_rows import Targets
from adabert_core.teacher import Teacher
from adabert_core.tokens import Collator, Ragged, Template, TokenRows
from adabert_core.tracking import Tracker

PEERS = [*ENCODERS, *TRANSFORMERS]
SEP, VOCABULARY = 3, 30
SINGLES = [[2, 7, 8, 9, 10, 11, SEP], [2, 12, SEP], [2, *range(4, 24), SEP]]
PAIRS = [[2, 7, 8, 9, SEP, 10, 11, SEP], [2, 12, SEP, *range(4, 20), SEP], [2, *range(4, 20), SEP, 5, SEP]]


def peer(architecture, separator_id=None):
    torch.manual_seed(0)
    config = AdaBertConfig(
        vocab_size=VOCABULARY, max_position_embeddings=40, separator_id=separator_id, architecture=architecture, num_labels=3
    )
    return AdaBertForSequenceClassification(config).eval()


def padded(rows, width=None):
    width = width or max(map(len, rows))
    ids, mask = torch.zeros(2, len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("architecture", PEERS)
@pytest.mark.parametrize(("rows", "separator"), [(SINGLES, None), (PAIRS, SEP)], ids=["single", "pair"])
@torch.no_grad()
def test_logits_are_the_same_alone_padded_and_in_a_batch(architecture, rows, separator):
    model = peer(architecture, separator)
    together = model(**padded(rows)).logits
    assert together.std(0).min() > 1e-3  # the rows do get different answers
    for i, row in enumerate(rows):
        alone = model(**padded([row])).logits
        torch.testing.assert_close(model(**padded([row], len(row) + 9)).logits, alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", PEERS)
@pytest.mark.parametrize(("rows", "separator"), [(SINGLES, None), (PAIRS, SEP)], ids=["single", "pair"])
@torch.no_grad()
def test_onnx_gives_torchs_logits_for_any_batch_and_length(architecture, rows, separator, tmp_path):
    model = peer(architecture, separator)
    export_student(model, tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx", 1)
    for part in (rows, rows[:1], rows[1:]):
        batch = padded(part)
        (found,) = session.run(None, {name: value.numpy() for name, value in batch.items()})
        np.testing.assert_allclose(found, model(**batch).logits.numpy(), atol=1e-4)
