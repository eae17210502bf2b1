"""A writer of small files, and prepare_data with settings as keywords."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from adabert_core.config_file import parse_section
from adabert_core.data.dataset import Dataset, read_dataset
from adabert_core.data.prepare import run
from adabert_core.storage import Checkpoints
from adabert_core.tracking import Tracker


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., Dataset]:
    def prepared(source: Path | str, name: str = "dataset", **settings: Any) -> Dataset:
        config = parse_section("data", {"source": str(source), **settings})
        run(config, {}, tmp_path / "out" / name, tracker=Tracker(""), checkpoints=Checkpoints(None))
        return read_dataset(tmp_path / "out" / name)

    return prepared


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(name: str, content: str | bytes | Iterable[Iterable[object]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str | bytes):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        else:
            with path.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream, delimiter="\t" if name.endswith(".tsv") else ",").writerows(content)
        return path

    return written
