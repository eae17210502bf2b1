"""Pairs without labels for LOG, "news beside RTE": a passage of BBC News and a short statement, mostly of the same article.

python docs/results/news_pairs.py FILE.csv CORPUS

CORPUS as for headline_rows.py.
"""

import csv
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from headline_rows import articles
from sklearn.feature_extraction.text import TfidfVectorizer

PASSAGE, STATEMENT = range(12, 71), range(5, 16)  # words
STATEMENTS = 4  # of an article, and its headline
CONTAINED, FAR = 0.35, 3  # share of statements that stand in their passage; every so many also meet another article's passage


def pairs(corpus: Path, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Each statement with the passage of its article that is most like it and does not hold it, some with others."""
    found = [(h, [re.split(r"(?<=[.!?]) (?=[A-Z\"'])", text) for text in texts]) for h, texts in articles(corpus)]
    spans = [
        (i, span)
        for i, (_, texts) in enumerate(found)
        for text in texts
        for k in range(0, len(text), 2)
        if len((span := " ".join(text[k : k + 2])).split()) in PASSAGE
    ]
    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    passages = vectorizer.fit_transform([span for _, span in spans])
    owner = np.array([i for i, _ in spans])
    for i, (headline, texts) in enumerate(found):
        short = [s for text in texts for s in text if len(s.split()) in STATEMENT and '"' not in s]
        rng.shuffle(short)
        own = np.flatnonzero(owner == i)
        for k, statement in enumerate([*short[:STATEMENTS], headline] if len(own) else []):
            likeness = (passages @ vectorizer.transform([statement]).T).toarray().ravel()
            near = [spans[j][1] for j in own[np.argsort(-likeness[own])]]
            holding = [span for span in near if statement in span]
            others = [span for span in near if statement not in span]
            if holding and rng.random() < CONTAINED:
                yield holding[0], statement
            if others:
                yield others[0], statement
            if k % FAR == 0:
                likeness[own] = -1
                yield spans[likeness.argmax()][1], statement


def main() -> None:
    """Writes FILE.csv with the columns sentence1 and sentence2, in any order."""
    rng = random.Random(0)  # noqa: S311
    found = list(dict.fromkeys(pairs(Path(sys.argv[2]), rng)))
    rng.shuffle(found)
    with Path(sys.argv[1]).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("sentence1", "sentence2"), *found])


if __name__ == "__main__":
    main()
