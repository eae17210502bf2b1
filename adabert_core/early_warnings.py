"""What a stage can tell a user while there is still time: what looks wrong, and what to do about it.

Comes in: what a stage has just found. Goes out: one sentence, or '' where all is well; `StageFrame.warn` takes either.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from adabert_core.evaluate import scores
from adabert_core.search_space import Genotype, kernel_of
from adabert_core.target_rows import Targets
from adabert_core.tokens import Ragged, TokenRows

_STATIC_ROWS = 20_000


def other_labels(own: Sequence[str], labels: Sequence[str]) -> str:
    """Says that a teacher was trained for as many classes in another order or of other names; LABEL_0 and so on are no names."""
    if len(own) != len(labels) or list(own) == list(labels) or all(name == f"LABEL_{i}" for i, name in enumerate(own)):
        return ""
    theirs, ours = ", ".join(own), ", ".join(labels)
    if order := head_order(own, labels):
        if order == list(range(len(order))):
            return ""
        return f"the teacher has its classes in the order {theirs}, the data {ours}: its head was put into the data's order"
    return (
        f"the teacher names its classes {theirs}, the data {ours}: they are taken to be the same in this order; "
        "if they are not, name the data's classes as the teacher does"
    )


def head_order(own: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Number of each of `labels` in a teacher's own, upper case or not; empty where they are not the same names."""
    known = {name.strip().casefold(): i for i, name in enumerate(own)}
    wanted = [label.strip().casefold() for label in labels]
    same = len(set(wanted)) == len(known) == len(own) == len(labels) and set(wanted) == set(known)
    return [known[name] for name in wanted] if same else []


def probes_at_chance(accuracy: np.ndarray, likelihood: np.ndarray, recall: np.ndarray, labels: np.ndarray) -> str:
    """Says that no layer's probe tells more on validation than how large the classes are.

    None is right more often than the largest class is large, by more than a standard error; none gives the labels more
    likelihood than the classes' shares do; none has a mean recall above chance by more than two standard errors. Of rare
    classes a probe may know much and still never answer one, or answer them too often and too surely.

    Args:
        accuracy: (J + 1,) of every layer's probe.
        likelihood: (J + 1,) mean log likelihood of the labels, in nats.
        recall: (J + 1,) mean of the classes' recalls.
        labels: (rows,) classes.
    """
    majority, counts = largest_class(labels), np.bincount(labels)
    counts = counts[counts > 0]
    prior = float((counts / len(labels) * np.log(counts / len(labels))).sum())
    fair = (1 + np.sqrt((1 / counts).sum())) / len(counts)  # a recall's standard error is at most half of 1 / sqrt(rows)
    lucky = majority + np.sqrt(majority * (1 - majority) / len(labels))
    if accuracy.max() > lucky or likelihood.max() > prior or recall.max() > fair:
        return ""
    return (
        f"no teacher layer's probe is better than always answering the largest class ({accuracy.max():.3f} at best, "
        f"{majority:.3f}): raise teacher.min_steps, try the other targets.pooling, or set search.final_weight and "
        "retrain.final_weight to 1"
    )


def collapsed_cell(genotype: Genotype) -> str:
    """Says that a search has chosen a cell without any convolution, which sees little more than a bag of words."""
    if not genotype.depth or any(kernel_of(operation) for _, _, operation in genotype.operations):
        return ""
    return (
        "the search chose a cell of pools and identities only, which cannot tell the order of words: lower search.beta, "
        "raise search.alpha_warmup_fraction, or set search.trial_steps"
    )


def over_budget(milliseconds: float, limit: float) -> str:
    """Says that the structure a search took is slower than the target."""
    if milliseconds <= limit:
        return ""
    return (
        f"no structure that was tried answers within {limit:.2f} ms here; the one taken needs {milliseconds:.2f}: "
        "lower search.channels, or allow more in target"
    )


def unmet_target(target: Mapping[str, float], retention: float, row: Mapping[str, Any]) -> list[str]:
    """Says of each part of a target that the finished student missed by how much; `row` is its headline latency."""
    found = []
    if (wanted := target.get("min_retention")) and retention < wanted:
        advice = "allow more latency, or raise retrain.max_steps or targets.augmented_rows"
        found.append(f"target.min_retention is not reached: {retention:.3f} of {wanted:g}; {advice}")
    if (wanted := target.get("latency_ms")) and row["p50_ms"] > wanted:
        found.append(f"target.latency_ms is not reached: {row['p50_ms']:.2f} at length {row['length']}, {wanted:g} allowed")
    if (wanted := target.get("speedup")) and row.get("speedup_vs_bert_base", wanted) < wanted:
        found.append(f"target.speedup is not reached: {row['speedup_vs_bert_base']:.1f} of {wanted:g}")
    return found


def untimed_teacher(rows: Sequence[Mapping[str, Any]]) -> str:
    """Says that the teacher has no ONNX row among the latencies: no exporter took it."""
    if any((row["model"], row["runtime"]) == ("teacher", "onnx") for row in rows):
        return ""
    return "torch cannot write the teacher as ONNX: its times in ONNX, and the student's against them, are left out"


def behind_static(student: float, static: float, metric: str) -> str:
    """Says that a student is behind logistic regression on mean word vectors."""
    if student >= static:
        return ""
    return (
        f"the student's validation {metric.replace('_', ' ')} ({student:.3f}) is below that of logistic regression on mean word "
        f"vectors ({static:.3f}): raise retrain.max_steps, or take retrain.architecture=static_linear"
    )


def static_baseline(targets: Targets) -> float:
    """Validation score of logistic regression on the means of a text's word vectors, fitted on at most 20,000 labelled rows."""
    train, validation = targets.train, targets.validation
    real = np.nonzero(train.labels >= 0)[0][:_STATIC_ROWS]
    words = targets.vectors["word"].numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    model.fit(text_means(train.rows.take(real), words), train.labels[real])
    answers = model.predict(text_means(validation.rows, words))
    return scores(validation.labels, answers, targets.info["metric"])["score"]


def text_means(rows: TokenRows, words: np.ndarray) -> np.ndarray:
    """Mean word vectors (rows, n); of a pair both, their distance and their product (rows, 4n)."""
    a = _means(rows.a, words)
    if rows.b is None:
        return a
    b = _means(rows.b, words)
    return np.concatenate([a, b, np.abs(a - b), a * b], axis=1)


def largest_class(labels: np.ndarray) -> float:
    """The share of rows in the largest class."""
    return float(np.bincount(labels).max() / len(labels))


def _means(texts: Ragged, words: np.ndarray) -> np.ndarray:
    shares = np.repeat(1 / np.maximum(texts.lengths, 1), texts.lengths).astype(np.float32)
    return csr_matrix((shares, texts.values, texts.offsets), shape=(len(texts), len(words))) @ words
