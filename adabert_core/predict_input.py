"""What `adabert predict` is to classify. Comes in: arguments, or a file or stdin. Goes out: texts, or tuples of two.

What training refuses in a text is refused here.
"""

import codecs
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adabert_core.errors import UserError
from adabert_core.texts import is_broken, is_empty

_TABLES = (".csv", ".tsv", ".parquet")


def paired(texts: list[str], pair: bool) -> list[Any]:
    """Returns the arguments as texts, or two by two.

    Raises:
        UserError: an odd number of texts for pairs, or one that training would refuse.
    """
    if pair and len(texts) % 2:
        raise UserError("this student classifies pairs: give the texts two by two.")
    texts = [sound(text, f"text {number}") for number, text in enumerate(texts, 1)]
    return list(zip(texts[::2], texts[1::2], strict=True)) if pair else texts


def texts_of(source: Path, pair: bool) -> Iterator[Any]:
    """Yields the texts of a file, or of stdin for -, one a line: as it is, or a JSON object; of a pair always an object.

    Raises:
        UserError: there is no such file, or a line is not as it must be.
    """
    if source.is_dir():
        raise UserError(f"--input {source}: a folder, name a file in it.")
    if str(source) != "-" and not source.exists():
        raise UserError(f"--input {source}: no such file.")
    if source.suffix.lower() in _TABLES:
        raise UserError(f"--input {source} is a table, whose lines are not texts: give a text a line, or objects with text.")
    content = sys.stdin.buffer.read() if str(source) == "-" else source.read_bytes()
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = f"{error.object[error.start]:#04x}"
        raise UserError(f"--input {source}, line {line}: byte {byte} is not UTF-8; save it as UTF-8 and try again.") from error
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        where = f"--input {source}, line {number}"
        if not line.strip():
            continue
        if line.lstrip().startswith("[{"):
            raise UserError(f"{where}: a list of objects; write one object a line.")
        if line.lstrip().startswith("{") or pair:
            yield _of_object(line, where, pair)
        else:
            yield sound(line, where)


def _of_object(line: str, where: str, pair: bool) -> Any:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    keys = ("text", "text_b") if pair else ("text",)
    found = [row[key] for key in keys if isinstance(row.get(key), str)] if isinstance(row, dict) else []
    if len(found) < len(keys):
        raise UserError(f"{where}: not a JSON object with {'text and text_b' if pair else 'text'} as strings.")
    first, *second = [sound(text, where) for text in found]
    return (first, *second) if pair else first


def sound(text: str, where: str) -> str:
    """Returns the text.

    Raises:
        UserError: it is empty or no Unicode.
    """
    if is_empty(text):
        raise UserError(f"{where}: the text is empty; fill it in or leave it out.")
    if is_broken(text):
        raise UserError(f"{where}: the text holds half a surrogate pair; write it as UTF-8.")
    return text
