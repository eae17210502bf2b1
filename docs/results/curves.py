"""The cost curves of SCALING: what a token costs each stage, over the length of the texts, the teacher's layers and K_max.

OMP_NUM_THREADS=1 python docs/results/curves.py SECONDS_EACH
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from adabert_core.calibration import measure
from adabert_core.config_file import parse_run_config
from adabert_core.data.builtin import teacher_folder
from adabert_core.stages import run_stage
from adabert_core.storage import Checkpoints
from adabert_core.teacher import new_teacher
from adabert_core.tracking import Tracker

LONGEST, ROWS = 512, 1500
KINDS = ("teacher", "scoring", "search", "student")


def microseconds(length: int, layers: int, k_max: int, seconds: float) -> list[float]:
    """Microseconds a token of each kind of work, for texts of that many tokens and a teacher of 384 dimensions."""
    tokenizer, rng = AutoTokenizer.from_pretrained(teacher_folder("minilm")), np.random.default_rng(0)
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and word.isascii())  # of one token each
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [(" ".join(rng.choice(words, length - 2)), str(i % 2)) for i in range(ROWS)]
            csv.writer(file).writerows([("text", "label"), *rows])
        sizes = {"hidden_size": 384, "num_hidden_layers": layers, "num_attention_heads": 12, "intermediate_size": 1536}
        BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "bert")
        tokenizer.save_pretrained(folder / "bert")
        config = parse_run_config(
            {
                "data": {"source": str(folder / "rows.csv")},
                "teacher": {"model": str(folder / "bert"), "max_length": LONGEST},
                "search": {"k_max": k_max, "proxy_channels": 64},
            }
        )
        run_stage("prepare_data", config.data, {}, folder / "data", tracker=Tracker(""), checkpoints=Checkpoints(None))
        teacher = new_teacher(config.teacher.model, ["0", "1"], pair=False, max_length=LONGEST)
        found = measure(config, folder / "data", teacher, folder, seconds)
        return [found[kind] * 1e6 for kind in KINDS]


if __name__ == "__main__":
    print("| tokens of a text | teacher layers J | K_max |", " | ".join(KINDS), "|")
    lengths = [(n, 6, 4) for n in (8, 16, 32, 64, 128, 256, 512)]
    for sizes in [*lengths, *((32, n, 4) for n in (3, 12, 24)), *((32, 6, n) for n in (1, 2, 8))]:
        figures = microseconds(*sizes, seconds=float(sys.argv[1]))
        print("|", " | ".join([*map(str, sizes), *(f"{figure:.1f}" for figure in figures)]), "|", flush=True)
