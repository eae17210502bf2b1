"""How long a model takes for a batch: on pinned threads, in turns with the models it is compared with.

Comes in: callables. Goes out: rows of milliseconds; a ratio of two rows is honest because both were timed in one run.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from adabert_core.report import LENGTH

_MIN_ROUNDS, _MAX_ROUNDS = 5, 300
Timed = tuple[str, str]  # model and runtime


def settings_to_time(
    threads: int, batches: Sequence[int], lengths: Sequence[int], longest: int
) -> dict[int, list[tuple[int, int]]]:
    """Returns threads -> (batch, length) of all that is asked for and of `report.headline_latency`; `longest` bounds lengths."""
    shown = sorted({min(length, longest) for length in lengths})
    found = {threads: [(batch, length) for batch in batches for length in shown]}
    headline, alone = (1, min(LENGTH, longest)), found.setdefault(1, [])
    if headline not in alone:
        alone.append(headline)
    return found


def time_in_turns(models: Mapping[Timed, Callable[[], Any]], seconds: float) -> dict[Timed, list[float]]:
    """Returns each model's times in ms. The models take turns until `seconds` per model are spent (5 to 300 rounds).

    A first round warms up and is not counted. A fast model is called many times in its turn, so that it is timed as
    often warm as a slow one, and each call counts on its own.
    """
    repeats: dict[Timed, int] = {}
    for name, call in models.items():
        call()
        started = time.perf_counter()
        call()
        repeats[name] = max(1, min(20, int(0.05 / (time.perf_counter() - started + 1e-9))))
    times: dict[Timed, list[float]] = {name: [] for name in models}
    deadline = time.perf_counter() + seconds * len(models)
    for done in range(_MAX_ROUNDS):
        if done >= _MIN_ROUNDS and time.perf_counter() > deadline:
            break
        for name, call in models.items():
            for _ in range(repeats[name]):
                started = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - started) * 1e3)
    return times


def rows_in_turns(
    calls: dict[Timed, Callable[[], None]], seconds: float, threads: int, batch: int, length: int
) -> list[dict[str, Any]]:
    """Latency rows of models that take turns over one setting."""
    timed = time_in_turns(calls, seconds)
    return [latency_row(*key, threads, batch, length, times) for key, times in timed.items()]


def latency_row(model: str, runtime: str, threads: int, batch: int, length: int, times_ms: list[float]) -> dict[str, Any]:
    """One row of the report: median and 90th percentile in ms, texts a second at the median."""
    p50 = statistics.median(times_ms)
    return {
        "model": model,
        "runtime": runtime,
        "threads": threads,
        "batch": batch,
        "length": length,
        "p50_ms": round(p50, 4),
        "p90_ms": round(float(np.percentile(times_ms, 90)), 4),
        "throughput": round(batch / p50 * 1e3, 1),
    }


def with_speedups(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds speedup_vs_bert_base and speedup_vs_teacher to rows with a match of equal runtime, threads, batch and length.

    Rows of onnx-int8, which only the student has, are compared with its peers in fp32 ONNX and say so: speedup_vs_bert_base_fp32.
    """
    keys = ("threads", "batch", "length")
    by_match = {(row["model"], row["runtime"], *(row[k] for k in keys)): row["p50_ms"] for row in rows}
    found = []
    for row in rows:
        int8 = row["runtime"] == "onnx-int8"
        match = ("onnx" if int8 else row["runtime"], *(row[k] for k in keys))
        ratios = {
            f"speedup_vs_{peer.replace('-', '_')}{'_fp32' if int8 else ''}": round(by_match[(peer, *match)] / row["p50_ms"], 2)
            for peer in ("bert-base", "teacher")
            if (peer, *match) in by_match and peer != row["model"]
        }
        found.append({**row, **ratios})
    return found


def random_batch(vocab_size: int, batch: int, length: int, separator_id: int | None) -> dict[str, np.ndarray]:
    """A batch of random ids with no padding; for pairs a separator in the middle and one at the end."""
    ids = np.random.default_rng(0).integers(min(1000, vocab_size // 2), vocab_size, (batch, length))
    if separator_id is not None:
        ids[ids == separator_id] += 1 if separator_id + 1 < vocab_size else -1
        ids[:, length // 2] = ids[:, -1] = separator_id
    segments = np.zeros_like(ids)
    if separator_id is not None:
        segments[:, length // 2 + 1 :] = 1
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": segments}


def torch_call(
    model: torch.nn.Module, batch: dict[str, np.ndarray], names: tuple[str, ...], device: str = "cpu"
) -> Callable[[], None]:
    """Returns a callable that runs a torch classifier, which is on `device`, once in fp32, and waits for the end of it."""
    tensors = {name: torch.from_numpy(batch[name]).to(device) for name in names}

    def call() -> None:
        with torch.inference_mode():
            model(**tensors)
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def onnx_call(session: Any, batch: dict[str, np.ndarray]) -> Callable[[], None]:
    """Returns a callable that runs an ONNX classifier once."""
    feed = {given.name: batch[given.name] for given in session.get_inputs()}
    return lambda: session.run(None, feed)
