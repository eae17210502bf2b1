"""What `adabert predict` reads, and what it says of a line that it cannot classify."""

import os
import threading
from pathlib import Path

import pytest

from adabert_core.errors import UserError
from adabert_core.predict_input import paired, texts_of


def test_input_file_may_hold_plain_lines_or_objects(tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text('a film\n\n{"text": "another"}\n')
    assert list(texts_of(source, pair=False)) == ["a film", "another"]
    source.write_text('{"text": "a", "text_b": "b"}\n{"text": "a"}\n')
    with pytest.raises(UserError, match="line 2: not a JSON object with text and text_b"):
        list(texts_of(source, pair=True))
    with pytest.raises(UserError, match="two by two"):
        paired(["a", "b", "c"], pair=True)


@pytest.mark.parametrize(
    ("content", "pair", "sentence"),
    [
        ("one\ncaf\u00e9".encode("latin-1"), False, "line 2: byte 0xe9 is not UTF-8"),
        (b'{"text": "a", "text_b": "b"}\n["a", "b"]', True, "line 2: not a JSON object with text and text_b as strings"),
        (b'"x"', True, "line 1: not a JSON object"),
        (b"a plain line", True, "line 1: not a JSON object"),
        (b'{"text": null}', False, "line 1: not a JSON object with text as strings"),
        (b'[{"text": "a"}, {"text": "b"}]', False, "line 1: a list of objects; write one object a line"),
        (b'{"text": ' * 100_000, False, "line 1: not a JSON object"),
        (b'{"text": 3}', False, "line 1: not a JSON object with text as strings"),
        (b'{"text": "a", "text_b": ["b"]}', True, "line 1: not a JSON object"),
        (b'one\n\n{"text": "\\ud83d"}', False, "line 3: the text holds half a surrogate pair"),
        (b'{"text": "a", "text_b": " "}', True, "line 1: the text is empty"),
        ("\u200b\u2060".encode(), False, "line 1: the text is empty"),
    ],
)
def test_line_that_cannot_be_classified_is_named(content: bytes, pair: bool, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        list(texts_of(tmp_path / "texts.jsonl", pair))


def test_arguments_are_checked_as_lines_are() -> None:
    with pytest.raises(UserError, match="text 2: the text holds half a surrogate pair"):
        paired(["a", "caf\udce9"], pair=False)


def test_marks_and_line_ends_of_other_systems_are_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\nb\r\n')
    assert list(texts_of(tmp_path / "texts.txt", pair=False)) == ["a", "b"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.TSV", "rows.parquet"])
def test_table_is_not_taken_for_lines_of_text(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("body,stars\na film,good\n")
    with pytest.raises(UserError, match="is a table, whose lines are not texts"):
        list(texts_of(tmp_path / name, pair=False))


def test_pipes_are_read_and_folders_are_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("a film\n",))
    writer.start()
    assert list(texts_of(tmp_path / "pipe", pair=False)) == ["a film"]
    writer.join()
    with pytest.raises(UserError, match="a folder, name a file in it"):
        list(texts_of(tmp_path, pair=False))
    with pytest.raises(UserError, match="no such file"):
        list(texts_of(tmp_path / "nothing", pair=False))
