"""The frozen teacher over many rows: pooled states, logits and probe logits, in batches of similar length.

Comes in: token rows and, once they are there, probes. Goes out: arrays in the rows' order; scored rows are kept shard by shard.
"""

import copy
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from adabert_core.attention import replace_attention
from adabert_core.config import TargetsConfig
from adabert_core.parallel import gathered, share
from adabert_core.probes import Probes, pool_states
from adabert_core.progress import Progress
from adabert_core.storage import Checkpoints
from adabert_core.tasks import Task
from adabert_core.teacher import Teacher
from adabert_core.tokens import Collator, length_sorted

log = logging.getLogger(__name__)
SHARD_ROWS = 8192


def scored_at_once(config: TargetsConfig, device: str) -> int:
    """Rows in a batch of the frozen teacher: on a CPU few, so that what lies between two products stays in its caches."""
    return config.batch_size or (512 if device == "cuda" else 32)


def scoring_model(model: Any, accelerator: Accelerator) -> Any:
    """A teacher that only answers: where the precision is bf16 a copy that is bf16 throughout, so that nothing is cast."""
    found = copy.deepcopy(model).to(torch.bfloat16) if accelerator.mixed_precision == "bf16" else model
    if accelerator.device.type == "cpu":
        replace_attention(found)
    return found


class Scorer:
    """The frozen teacher over many rows: pooled states, logits and probe logits, in batches of similar length."""

    def __init__(
        self,
        teacher: Teacher,
        accelerator: Accelerator,
        pooling: str,
        batch_size: int,
        checkpoints: Checkpoints,
        key: str,
        task: Task,
    ) -> None:
        self.task = task
        self.accelerator, self.pooling = accelerator, pooling
        self.batch_size, self.checkpoints, self.key = batch_size, checkpoints, key
        self.model = scoring_model(teacher.model, accelerator)
        self.tokens, self.seconds = 0, 0.0  # scored so far

    def announce(self, parts: Mapping[str, Collator]) -> None:
        """Says what is about to be scored and how long that will take, by the speed so far; nothing is known after a restart."""
        tokens = sum(int(rows.lengths.sum()) for rows in parts.values())
        what = ", ".join(f"{len(rows.lengths)} {name} rows" for name, rows in parts.items())
        time_left = f", about {tokens * self.seconds / self.tokens:.0f} s" if self.tokens else ""
        log.info("to be scored: %s, %.1f M tokens%s", what, tokens / 1e6, time_left)

    @torch.no_grad()
    def forward(self, rows: Collator, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Row indices -> logits (B, classes) and pooled states (B, J + 1, H), one pass for both."""
        started = time.perf_counter()
        batch = rows(index, self.accelerator.device)
        out = self.model(**batch, output_hidden_states=True)
        found = (
            self.task.in_units(out.logits.float().cpu()),
            pool_states(out.hidden_states, batch["attention_mask"], self.pooling).cpu(),
        )
        self.tokens, self.seconds = self.tokens + batch["input_ids"].numel(), self.seconds + time.perf_counter() - started
        return found

    def states(self, rows: Collator, scratch: Path) -> tuple[np.ndarray, np.ndarray]:
        """All rows' pooled states (rows, J + 1, H), in a memory-mapped float16 file, and logits (rows, classes)."""
        states: np.ndarray | None = None
        logits: np.ndarray | None = None
        progress = Progress("teacher states", len(rows.lengths))
        for index in length_sorted(rows.lengths, self.batch_size):
            answer, pooled = self.forward(rows, index)
            if states is None or logits is None:
                shape = (len(rows.lengths), *pooled.shape[1:])
                states = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.float16, shape=shape)
                logits = np.empty((len(rows.lengths), answer.shape[1]), np.float32)
            states[index], logits[index] = pooled.half().numpy(), answer.numpy()
            progress.update(len(index))
        progress.close()
        if states is None or logits is None:
            raise ValueError("no rows to score")
        return states, logits

    def score(self, rows: Collator, probes: Probes, name: str) -> tuple[np.ndarray, np.ndarray]:
        """All rows' teacher logits (rows, classes) and probe logits (rows, J + 1, classes), kept shard by shard."""
        layers, _, classes = probes.weight.shape
        logits = np.empty((len(rows.lengths), classes), np.float32)
        probe_logits = np.empty((len(rows.lengths), layers, classes), np.float32)
        progress = Progress(f"scoring {name}", len(rows.lengths))
        for first in range(0, len(rows.lengths), SHARD_ROWS):
            shard = np.arange(first, min(first + SHARD_ROWS, len(rows.lengths)))
            key = f"{self.key}/{name}-{first // SHARD_ROWS:05d}"
            saved = self.checkpoints.load(key)
            if saved is None:
                saved = self._score_shard(rows, shard, probes)
                self.checkpoints.save(key, saved)
            logits[shard], probe_logits[shard] = saved["teacher"].numpy(), saved["probes"].numpy()
            progress.update(len(shard))
        progress.close()
        return logits, probe_logits

    def _score_shard(self, rows: Collator, shard: np.ndarray, probes: Probes) -> dict[str, Any]:
        layers, _, classes = probes.weight.shape
        saved = {"teacher": torch.zeros(len(shard), classes), "probes": torch.zeros(len(shard), layers, classes)}
        batches = list(length_sorted(rows.lengths[shard], self.batch_size))
        for part in share(batches):
            answer, pooled = self.forward(rows, shard[part])
            saved["teacher"][part], saved["probes"][part] = answer, probes(pooled)
        return {name: gathered(found, batches, self.accelerator.device) for name, found in saved.items()}
