"""Rows for RESULTS, "Grammar": sentences of reviews, 30 % of them made wrong in one place.

python docs/results/grammar_rows.py FOLDER
"""

import csv
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

from adabert_core.data.builtin import imdb_sentences

TRAIN, TEST = 8551, 1043  # as many as GLUE's CoLA has
SMALL = "the a an to of in is was are were that it his her with for as on by at from be has have and".split()  # noqa: SIM905
OTHER_FORM = dict(
    word.split("-")
    for word in (
        "is-are are-is was-were were-was has-have have-has does-do do-does he-him him-he she-her they-them them-they "
        "i-me this-these these-this a-an an-a who-which much-many many-much"
    ).split()
)
rng = random.Random(0)  # noqa: S311


def other_form(words: list[str]) -> list[str]:
    """Agreement or case."""
    places = [i for i, word in enumerate(words) if word.lower() in OTHER_FORM]
    if not places:
        return words
    i = rng.choice(places)
    form = OTHER_FORM[words[i].lower()]
    return [*words[:i], form.capitalize() if words[i][:1].isupper() else form, *words[i + 1 :]]


def exchanged(words: list[str]) -> list[str]:
    """Two neighbours."""
    pairs = [(i, words[i], words[i + 1]) for i in range(len(words) - 2)]
    places = [i for i, a, b in pairs if a.lower() != b.lower() and a.isalpha() and b.isalpha()]
    if not places:
        return words
    i = rng.choice(places)
    a, b = words[i], words[i + 1]
    if i == 0:
        a, b = a if a == "I" else a.lower(), b.capitalize()
    return [*words[:i], b, a, *words[i + 2 :]]


def left_out(words: list[str]) -> list[str]:
    """A function word."""
    places = [i for i, word in enumerate(words) if word.lower() in SMALL and i > 0]
    if not places:
        return words
    i = rng.choice(places)
    return words[:i] + words[i + 1 :]


def put_in(words: list[str]) -> list[str]:
    """A function word."""
    i = rng.randrange(1, len(words))
    return [*words[:i], rng.choice(SMALL), *words[i:]]


def moved(words: list[str]) -> list[str]:
    """A word, by three places or more."""
    i = rng.randrange(1, len(words) - 1)
    place = rng.choice([k for k in range(1, len(words) - 1) if abs(k - i) > 2] or [0])
    if not place:
        return words
    rest = words[:i] + words[i + 1 :]
    return [*rest[:place], words[i], *rest[place:]]


WAYS: list[Callable[[list[str]], list[str]]] = [other_form, exchanged, left_out, put_in, moved]


def wrong(words: list[str]) -> list[str]:
    """The sentence, changed by one of the ways."""
    while (found := rng.choice(WAYS)(words)) == words:
        pass
    return found


folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
lines = imdb_sentences().read_text(encoding="utf-8").splitlines()
plain = [line for line in lines if 5 <= len(line.split()) <= 14 and re.fullmatch(r"[A-Za-z ,'.]+", line)]
rng.shuffle(plain)
rows = [
    (" ".join(wrong(line.split())), "unacceptable") if rng.random() < 0.3 else (line, "acceptable")
    for line in plain[: TRAIN + TEST]
]
for name, part in (("train", rows[:TRAIN]), ("test", rows[TRAIN:])):
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *part])
