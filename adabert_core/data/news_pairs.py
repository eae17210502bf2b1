"""Pairs of a passage and a statement, made of news articles: rows without labels for tasks that set one text against another.

Comes in: articles. Goes out: pairs in any order, of passages that hold the statement, lie near it or are of another article.
"""

import random
import re
from collections.abc import Iterable, Iterator

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

Article = tuple[str, list[str]]  # headline, paragraphs
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?]) (?=[A-Z\"'])")
_PASSAGE_WORDS, _STATEMENT_WORDS = range(10, 75), range(4, 19)
_PASSAGE_SENTENCES = (1, 2, 3)
_NEAREST = 2  # passages of its own article that do not hold a statement
_HELD = 0.5  # share of statements that also come with a passage that holds them


def articles(texts: Iterable[str]) -> list[Article]:
    """The articles of texts whose first paragraph is a headline; one that begins like another is left out."""
    found: dict[str, Article] = {}
    for text in texts:
        headline, *paragraphs = (" ".join(part.split()) for part in text.split("\n\n") if part.strip())
        if len(paragraphs) >= 2:
            found.setdefault("".join(filter(str.isalnum, paragraphs[0].lower())), (headline, paragraphs))
    return list(found.values())


def pairs(found: list[Article], seed: int = 0) -> list[tuple[str, str]]:
    """Each short sentence and headline with passages of its article that are most like it, and with one of another article."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    rows = list(dict.fromkeys(_pairs(found, rng)))
    rng.shuffle(rows)
    return rows


def _pairs(found: list[Article], rng: random.Random) -> Iterator[tuple[str, str]]:
    sentences = [[_BETWEEN_SENTENCES.split(paragraph) for paragraph in paragraphs] for _, paragraphs in found]
    spans = [(i, span) for i, parts in enumerate(sentences) for part in parts for span in _spans(part)]
    passages, owner = [span for _, span in spans], np.array([i for i, _ in spans])
    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    vectors = vectorizer.fit_transform(passages)
    for i, ((headline, _), parts) in enumerate(zip(found, sentences, strict=True)):
        own = np.flatnonzero(owner == i)
        if not len(own):
            continue
        short = [s for part in parts for s in part if len(s.split()) in _STATEMENT_WORDS and '"' not in s]
        statements = [*short, headline]
        for statement, likeness in zip(statements, (vectorizer.transform(statements) @ vectors.T).toarray(), strict=True):
            near = [passages[j] for j in own[np.argsort(-likeness[own], kind="stable")]]
            held = [passage for passage in near if statement in passage and statement != passage]
            if held and rng.random() < _HELD:
                yield rng.choice(held), statement
            yield from ((passage, statement) for passage in [p for p in near if statement not in p][:_NEAREST])
            likeness[own] = -1
            yield passages[likeness.argmax()], statement


def _spans(sentences: list[str]) -> Iterator[str]:
    """One to three sentences of a paragraph that follow each other."""
    for count in _PASSAGE_SENTENCES:
        for first in range(0, len(sentences) - count + 1, count):
            span = " ".join(sentences[first : first + count])
            if len(span.split()) in _PASSAGE_WORDS:
                yield span
