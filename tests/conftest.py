"""Tiny teachers of two families, a small data set whose labels can be learned, and target rows from made-up ids."""

import csv
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads cost more than they bring
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")  # and to make a kernel again takes a third of a tiny step
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a hundred processes would compile this package each

GOOD = ("good", "great", "fine", "lovely", "superb", "charming")
BAD = ("bad", "awful", "poor", "dull", "boring", "ugly")
OTHER = ("the", "a", "film", "story", "plot", "cast", "was", "is", "very", "and", "play", "scene", "end", "it", "of", "this")
WORDS = (*GOOD, *BAD, *OTHER)
ROBERTA_MARKS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LABELS = ["bad", "good"]


_LONGEST = (
    *("test_dag.py", "test_faults.py", "test_run.py", "test_sweep.py"),  # of the integration tests
    "test_end_to_end.py",
    "test_planted_structure.py",
    "test_docs.py",
    "test_submit.py",
    "test_presets.py",
    "test_parallel.py",
)
FAMILIES = {
    "Bart": {"decoder_layers": 2, "encoder_layers": 2, "d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
    "XLNet": {"n_layer": 2, "d_model": 32, "n_head": 2, "d_inner": 64},
    "Longformer": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    | {"attention_window": [8, 8], "max_position_embeddings": 66},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Rows of (text, label): two of a class's words among other words, so that the label can be learned."""
    rng = random.Random(seed)  # noqa: S311
    rows = []
    for i in range(count):
        label = LABELS[i % 2]
        words = rng.sample(GOOD if label == "good" else BAD, 2) + rng.choices(OTHER, k=rng.randint(2, 9))
        rng.shuffle(words)
        rows.append((f"{' '.join(words)} {rng.choice(OTHER)}s", label))
    return rows


def replace_weights(teacher: Path) -> None:
    """Writes other weights of the same shapes into a teacher's folder."""
    from safetensors.torch import load_file, save_file

    weights = load_file(teacher / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in weights.items()}, teacher / "model.safetensors", {"format": "pt"})


def killed_while_writing(target: Path) -> Path:
    """Has a process killed in the middle of writing a directory, and returns what it leaves."""
    code = """
import os, pathlib, signal, sys
from adabert_core.artifacts import whole_directory
with whole_directory(pathlib.Path(sys.argv[1])) as scratch:
    (scratch / "half").touch()
    print(scratch, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    assert done.returncode == -signal.SIGKILL
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers x 32 with random weights and a WordPiece tokenizer ([CLS] A [SEP] B [SEP], segments)."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##ing", "."]
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    folder = tmp_path_factory.mktemp("bert")
    BertForSequenceClassification(config).save_pretrained(folder, safe_serialization=True)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa of 2 layers x 32 with random weights and a WordLevel tokenizer (<s> A </s></s> B </s>, no segments)."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = [*ROBERTA_MARKS, *WORDS]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return save_roberta(tokenizer, tmp_path_factory.mktemp("roberta"))


def save_roberta(tokenizer: Any, folder: Path) -> Path:
    """Writes a RoBERTa of 2 layers x 32 with random weights for a tokenizer whose first ids are ROBERTA_MARKS."""
    import torch
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=66,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    RobertaForSequenceClassification(config).save_pretrained(folder, safe_serialization=True)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def family(roberta_folder: Path, tmp_path: Path) -> Callable[[str], str]:
    """Writes a teacher of a family with random weights and RoBERTa's tokenizer."""
    import transformers

    def written(name: str) -> str:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(roberta_folder)
        marks = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "sep_token_id": 2}
        config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer), **FAMILIES[name], **marks)
        getattr(transformers, f"{name}ForSequenceClassification")(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return written


@pytest.fixture(scope="session", params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """The fast tokenizer of either family, as a user's folder gives it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(request.getfixturevalue(f"{request.param}_folder"))


@pytest.fixture(scope="session")
def learnable_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 rows of text and label (bad, good) whose label follows from the words."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *sentences(300, seed=0)])
    return path


@pytest.fixture(scope="session")
def target_rows() -> Callable[..., Any]:
    """Builds TargetRows from ids: teacher logits `sure` at the label, probes that grow as sure layer by layer."""
    import numpy as np

    from adabert_core.target_rows import TargetRows
    from adabert_core.tokens import Ragged, TokenRows

    def built(
        ids: Sequence[Sequence[int]],
        labels: Sequence[int],
        second: Sequence[Sequence[int]] | None = None,
        *,
        classes: int = 2,
        layers: int = 2,
        sure: float = 4.0,
    ) -> TargetRows:
        rows = TokenRows(Ragged.of(ids), None if second is None else Ragged.of(second))
        logits = np.eye(classes, dtype=np.float32)[labels] * np.float32(sure)
        probes = np.stack([logits * np.float32(j / layers) for j in range(layers + 1)], axis=1)
        return TargetRows(rows, np.asarray(labels), logits, probes)

    return built


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A fresh Kubeflow Pipelines API server (kfp_api_actions.State); its URL is `server.url`."""
    from kfp_api_server import serve

    for name in ("KFP_ENDPOINT", "KFP_NAMESPACE", "KFP_EXISTING_TOKEN", "KF_PIPELINES_UI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with serve() as state:
        yield state


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command line of pipelines.run in this process, as a shell would see it (kfp_api_server.Done).

    In a thread of its own, because kfp reads the whole stack for every setting of every task, and pytest's is deep.
    """
    from kfp_api_server import Done

    from pipelines.run import main

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["pipelines.run", *arguments])
        with ThreadPoolExecutor(1) as thread, pytest.raises(SystemExit) as ended:
            thread.submit(main).result()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run
