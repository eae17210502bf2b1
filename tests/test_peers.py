"""Peers answer like good students: padding changes nothing, they can learn, and ONNX says what torch says."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adabert_core.config import RetrainConfig
from adabert_core.export import export_student, open_session
from adabert_core.peers import ENCODERS, TRANSFORMERS, WORD
from adabert_core.search_space import Genotype
from adabert_core.storage import Checkpoints
from adabert_core.student import AdaBertConfig, AdaBertForSequenceClassification
from adabert_core.student_training import train_student
from adabert_core.target_rows import Targets
from adabert_core.teacher import Teacher
from adabert_core.tokens import Template
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


@pytest.mark.parametrize("architecture", ["bilstm", "textcnn", "static_mlp", "transformer_2x128"])
@torch.no_grad()
def test_onnx_gives_torchs_logits_for_any_batch_and_length(architecture, tmp_path):
    model = peer(architecture, SEP)
    export_student(model, tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx", 1)
    for part in (PAIRS, PAIRS[:1], PAIRS[1:]):
        batch = padded(part)
        (found,) = session.run(None, {name: value.numpy() for name, value in batch.items()})
        np.testing.assert_allclose(found, model(**batch).logits.numpy(), atol=1e-4)


def votes(count, seed):
    """Half of the tokens are 2 or 3: the label says which of them is there more often. Every peer can count."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, VOCABULARY, (count, 9))
    ids = np.where(rng.random(ids.shape) < 0.6, rng.integers(2, 4, ids.shape), ids)
    return ids.tolist(), ((ids == 2).sum(1) > (ids == 3).sum(1)).astype(np.int64)


@pytest.mark.parametrize("architecture", PEERS)
def test_every_weight_gets_a_gradient_in_bf16(architecture):
    model = peer(architecture, SEP).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**padded(PAIRS)).logits.float().square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("architecture", [*ENCODERS, "transformer_2x128"])
def test_peers_learn_through_the_students_training(architecture, target_rows):
    info = {"labels": ["no", "yes"], "metric": "accuracy", "probe_log_likelihood": [-0.7, -0.4, -0.1]}
    vectors = {"word": torch.randn(VOCABULARY, WORD, generator=torch.Generator().manual_seed(0))}
    targets = Targets(info, target_rows(*votes(2000, 0)), target_rows(*votes(400, 1)), vectors)
    model = SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(VOCABULARY, 4))
    rate = 2e-3 if architecture in ENCODERS else 5e-4
    config = RetrainConfig(
        min_steps=120,
        max_steps=120,
        batch_size=64,
        learning_rate=rate,
        evaluations=1,
        architecture=architecture,
        precision="fp32",
    )
    student, score = train_student(
        Genotype(0, ()),
        Teacher(model, None, Template((), (), (), 0, False), 32, False),
        targets,
        config,
        channels=8,
        supernet=None,
        tracker=Tracker(""),
        checkpoints=Checkpoints(None),
        checkpoint_key="peer",
    )
    assert score > 0.85
    assert student.config.architecture == architecture


def test_words_start_as_the_teachers_and_a_pair_is_seen_from_both_sides():
    model = peer("static_linear", SEP)
    assert model.network.tables()["word"].shape == (VOCABULARY, WORD)
    assert model.network.classifier.in_features == 4 * WORD
    assert set(peer("transformer_2x128", SEP).network.tables()) == {"word", "position", "segment"}


def test_static_mean_weighs_rare_words_more():
    model = peer("static_linear")
    with torch.no_grad():
        model.network.word.weight.copy_(torch.ones(VOCABULARY, WORD))
        (features,) = model.network.summaries(torch.tensor([[1, 29], [1, 29]]), torch.tensor([[1, 1], [1, 0]]), 0)
    assert features[0, 0].item() == pytest.approx((np.log(2) + np.log(30)) / 2 / np.log(30))
    assert features[1, 0].item() == pytest.approx(np.log(2) / np.log(30))
