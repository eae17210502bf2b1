"""Reading of CSV, TSV, JSONL, JSON and Parquet files (and compressed ones) into tables that know their lines.

Comes in: a path, and the columns of CSV and TSV files without a header. Goes out: a `Table`, every cell as it was written
(CSV and TSV cells are strings, nothing is guessed). Files are parsed at full speed; the line of a row is looked up only when
an error has to name it.
"""

import codecs
import collections
import csv
import dataclasses
import functools
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from adabert_core.errors import UserError

COMPRESSIONS = (".gz", ".bz2", ".zst")
_PACKED = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "zstd": b"\x28\xb5\x2f\xfd"}
_BLOCK_BYTES = 64 * 2**20


def _no_line(row: int) -> int | None:
    return None


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of one file or hub split; `line` gives the 1-based line on which a row (0-based) starts, if there are lines."""

    name: str
    frame: pd.DataFrame
    line: Callable[[int], int | None] = _no_line

    def place(self, row: int) -> str:
        """Returns `name, line N` or `name, row N`, for the sentence of an error."""
        line = self.line(row)
        return f"{self.name}, line {line}" if line is not None else f"{self.name}, row {row + 1}"


def file_format(path: Path) -> str | None:
    """Returns the suffix that names a readable format, a compression's suffix left aside, or None."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in _FORMATS else None


def formats() -> str:
    """Returns the known file formats as a sentence lists them."""
    return ", ".join(_FORMATS)


def read_file(path: Path, columns: Sequence[str] = ()) -> Table:
    """Returns the table of a file with a known format.

    `columns` are those of a CSV or TSV file without a header. Where a file's first line is just these names, or has some of them
    and another length, that is its header.

    Raises:
        UserError: the file is empty, cannot be read or decoded, or a line of it is broken; the sentence names the line.
    """
    kind = file_format(path)
    if kind is None:
        raise UserError(f"{path}: this kind of file is not known; data.source reads {formats()}.")
    try:
        with pa.input_stream(str(path), compression=_compression(path)) as stream:
            content = stream.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): check the file and its permissions.") from error
    if not content.removeprefix(codecs.BOM_UTF8).strip():
        raise UserError(f"{path} is empty: give a file with rows.")
    if kind in _DELIMITERS:
        return _read_delimited(str(path), content, _DELIMITERS[kind], list(columns))
    return _READERS[kind](str(path), content)


def _compression(path: Path) -> str | None:
    """How a file is packed, by its first bytes: a suffix may be missing or in capitals."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for name, mark in _PACKED.items() if start.startswith(mark)), None)


def _decoded(name: str, content: bytes) -> str:
    """Returns the text of UTF-8 bytes without a byte order mark."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(content[: error.start + 1].splitlines())
        raise UserError(f"{name}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8 and try again.") from error
    if (zero := content.find(0)) >= 0:
        line = len(content[: zero + 1].splitlines())
        raise UserError(f"{name}, line {line}: byte {zero} is zero, so this is UTF-16 or not text; save the file as UTF-8.")
    return text


def _read_delimited(name: str, content: bytes, delimiter: str, columns: list[str]) -> Table:
    text = _decoded(name, content)
    quoted = delimiter == "," or _is_quoted(text, delimiter)
    layout = functools.partial(_records, delimiter=delimiter, quoted=quoted)
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted)
    _, first = next(layout(text))
    headed = first == columns or (len(first) != len(columns) and not set(first).isdisjoint(columns))
    named = [] if headed else columns
    header = named or first
    if not named and (repeated := sorted({column for column in header if header.count(column) > 1})):
        raise UserError(
            f"{name}, line 1: the column name {repeated[0]!r} occurs twice; rename one, or list the columns in data.columns if "
            "this is no header."
        )
    convert = pyarrow.csv.ConvertOptions(
        column_types={column: pa.string() for column in header}, strings_can_be_null=False, quoted_strings_can_be_null=False
    )
    read = pyarrow.csv.ReadOptions(block_size=min(len(content) + 1, _BLOCK_BYTES), column_names=named)
    try:
        # The added line end lets a file that is a header and nothing else parse as zero rows.
        table = pyarrow.csv.read_csv(pa.BufferReader(content + b"\n"), read, parse, convert)
    except pa.ArrowInvalid as error:
        _raise_first_ragged(name, layout(text), delimiter, named)
        raise UserError(f"{name} cannot be parsed ({' '.join(str(error).split())}): check its quotes.") from error
    frame = table.to_pandas()
    _check_last_quote(name, frame, layout(text))
    return Table(name, frame, lambda row: _line_of_record(layout(text), row if named else row + 1))


def _records(text: str, *, delimiter: str, quoted: bool, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yields the records of delimited text that are not blank, each with the line it starts on."""
    csv.field_size_limit(2**31 - 1)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=strict)
    line = 1
    for fields in reader:
        if fields:
            yield line, fields
        line = reader.line_num + 1


def _line_of_record(records: Iterator[tuple[int, list[str]]], number: int) -> int | None:
    return next((line for line, _ in itertools.islice(records, number, None)), None)


def _is_quoted(text: str, delimiter: str) -> bool:
    """Returns whether quotes in tab-separated text enclose fields (as pandas writes it) or are letters (as in GLUE).

    They enclose fields when every field that starts with a quote also ends with one, all records are then equally long,
    and reading quotes as letters either breaks records or gives the same number of them.
    """
    if '"' not in text:
        return False
    enclosed = _record_count(_records(text, delimiter=delimiter, quoted=True, strict=True))
    letters = _record_count(_records(text, delimiter=delimiter, quoted=False))
    return enclosed is not None and letters in (None, enclosed)


def _record_count(records: Iterator[tuple[int, list[str]]]) -> int | None:
    """Returns the number of records, or None when they are not equally long or not well formed."""
    try:
        lengths = [len(fields) for _, fields in records]
    except csv.Error:
        return None
    return len(lengths) if len(set(lengths)) == 1 else None


def _raise_first_ragged(name: str, records: Iterator[tuple[int, list[str]]], delimiter: str, named: list[str]) -> None:
    first = next(records)
    refuse_other_delimiter(name, first[1])
    width, where = (len(named), "data.columns") if named else (len(first[1]), "the header")
    for line, fields in itertools.chain([first], records):
        if len(fields) != width:
            mark = "tabs" if delimiter == "\t" else "commas, quotes or line ends"
            raise UserError(
                f"{name}, line {line}: {len(fields)} fields where {where} has {width}; "
                f"remove or quote {mark} inside texts and close every quote."
            )


def refuse_other_delimiter(name: str, columns: list[str]) -> None:
    """Refuses a header of one column that has another delimiter in it.

    Raises:
        UserError: it does.
    """
    for separator, what in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(columns) == 1 and separator in columns[0]:
            raise UserError(
                f"{name} has {what} between its columns ({columns[0]!r}): save it as a CSV with commas, or as .tsv with tabs."
            )


def _check_last_quote(name: str, frame: pd.DataFrame, records: Iterator[tuple[int, list[str]]]) -> None:
    """Refuses a quote that is open at the end of the file: the added line end then lies inside the last cell."""
    if len(frame) and (cell := str(frame.iloc[-1, -1])).endswith("\n"):
        line, fields = collections.deque(records, maxlen=1).pop()
        if fields[-1] != cell:
            raise UserError(f"{name}, line {line}: a quote is opened here and never closed; close it or double it.")


def _read_json_lines(name: str, content: bytes) -> Table:
    text = _decoded(name, content)
    if text.lstrip().startswith("["):
        return _read_json_list(name, text)
    lines = text.replace("\r\n", "\n").split("\n")
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    records = []
    for number in numbers:
        try:
            records.append(json.loads(lines[number - 1]))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}, line {number}: not a JSON object ({error}); write one object per line.") from error
    return Table(name, _frame(name, records, lambda row: numbers[row]), lambda row: numbers[row])


def _read_json_list(name: str, text: str) -> Table:
    try:
        records = json.loads(text)
    except RecursionError as error:
        raise UserError(f"{name}: not JSON that can be read, it is nested too deeply; write one object per line.") from error
    except json.JSONDecodeError as error:
        place = f"{name}, line {error.lineno}"
        raise UserError(f"{place}: not JSON ({error.msg}); give a list of objects or one object per line.") from error
    return Table(name, _frame(name, records, _no_line))


def _frame(name: str, records: list[Any], line: Callable[[int], int | None]) -> pd.DataFrame:
    odd = next((row for row, record in enumerate(records) if not isinstance(record, dict)), None)
    if odd is not None:
        place = Table(name, pd.DataFrame(), line).place(odd)
        raise UserError(f"{place}: {type(records[odd]).__name__} found where an object with named fields is needed.")
    if not any(records):
        raise UserError(f"{name} has no rows: give a file with rows.")
    try:
        return pd.DataFrame(records, dtype=object)
    except UnicodeEncodeError as error:
        raise UserError(f"{name}: the column name {error.object!r} holds half a surrogate pair; write it as UTF-8.") from error


def _read_parquet(name: str, content: bytes) -> Table:
    try:
        frame = pyarrow.parquet.read_table(pa.BufferReader(content)).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name} cannot be read as Parquet ({reason}); write it again.") from error
    unnamed = [column for column in frame.columns if re.fullmatch(r"__index_level_\d+__", str(column))]
    return Table(name, plain_cells(frame.drop(columns=unnamed)))


def plain_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the frame with strings as column names and cells that are objects, bytes in UTF-8 strings and arrays lists.

    Spark, Hive and Impala write strings as bytes; bytes that are not UTF-8 stay as they are.
    """
    plain = frame.astype(object).set_axis([str(name) for name in frame.columns], axis="columns")
    for column in plain.columns:
        if any(isinstance(cell, bytes | np.ndarray) for cell in plain[column]):
            plain[column] = pd.Series([_plain(cell) for cell in plain[column]], dtype=object)
    return plain


def _plain(cell: Any) -> Any:
    if isinstance(cell, np.ndarray):
        return [_plain(part) for part in cell]
    try:
        return cell.decode() if isinstance(cell, bytes) else cell
    except UnicodeDecodeError:
        return cell


_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_READERS: dict[str, Callable[[str, bytes], Table]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
    ".parquet": _read_parquet,
}
_FORMATS = (*_DELIMITERS, *_READERS)
