import gzip

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from adabert_core.data.files import read_file
from adabert_core.errors import UserError


def cells(table):
    return table.frame.values.tolist()


def test_line_ends_inside_quoted_cells_keep_the_line_numbers_right(write):
    table = read_file(write("a.csv", 'text,label\n"one\n\nend",x\n\n"two, ""quoted""",y\n'))
    assert cells(table) == [["one\n\nend", "x"], ['two, "quoted"', "y"]]
    assert [table.line(0), table.line(1)] == [2, 6]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_is_read(write, end):
    table = read_file(write("a.csv", end.join(["text,label", "a,1", "b,2"])))
    assert cells(table) == [["a", "1"], ["b", "2"]]
    assert table.place(1).endswith("a.csv, line 3")


def test_byte_order_mark_is_not_part_of_the_first_column(write):
    assert list(read_file(write("a.csv", b"\xef\xbb\xbftext,label\na,1\n")).frame.columns) == ["text", "label"]
    assert list(read_file(write("a.jsonl", b'\xef\xbb\xbf{"text": "a"}\n')).frame.columns) == ["text"]


def test_cells_are_not_guessed(write):
    table = read_file(write("a.csv", "text,label\nNA,01\nnull,true\n2020-01-01,\n"))
    assert cells(table) == [["NA", "01"], ["null", "true"], ["2020-01-01", ""]]


def test_tsv_with_quotes_as_letters(write):
    table = read_file(write("a.tsv", 'text\tlabel\n" Hm , " he said\t1\n"Never closed\t0\n5 " wide\t1\n'))
    assert cells(table) == [['" Hm , " he said', "1"], ['"Never closed', "0"], ['5 " wide', "1"]]


def test_tsv_with_quotes_that_would_join_two_rows(write):
    assert cells(read_file(write("a.tsv", 'text\tlabel\n"x\t1\ny"\t0\n'))) == [['"x', "1"], ['y"', "0"]]


def test_tsv_with_enclosing_quotes(write):
    table = read_file(write("a.tsv", 'text\tlabel\n"a\tb"\t1\n"c\nd"\t1\n"say ""hi"""\t0\n'))
    assert cells(table) == [["a\tb", "1"], ["c\nd", "1"], ['say "hi"', "0"]]
    assert table.line(2) == 5


def test_file_without_a_header_has_the_columns_it_is_given(write):
    rows = 'gj04\t1\t\tOur friends won"t buy this.\ngj04\t0\t*\tThey drank the pub.\n'
    columns = ["source", "label", "star", "sentence"]
    for content, start in ((rows, 1), ("\t".join(columns) + "\n" + rows, 2)):  # a header of these names stays one
        table = read_file(write("a.tsv", content), columns)
        assert list(table.frame.columns) == columns
        assert cells(table) == [["gj04", "1", "", 'Our friends won"t buy this.'], ["gj04", "0", "*", "They drank the pub."]]
        assert [table.line(0), table.line(1)] == [start, start + 1]
    assert cells(read_file(write("a.csv", '"3","a, b"\n'), ["class", "text"])) == [["3", "a, b"]]
    assert cells(read_file(write("a.jsonl", '{"text": "a"}'), ["class", "text"])) == [["a"]]
    for content, line, fields in (("1,a,b\n0,c\n", 1, 3), ("1,a\n0,b,c\n", 2, 3), ("1,a\n0\n", 2, 1)):
        with pytest.raises(UserError, match=rf"a\.csv, line {line}: {fields} fields where data\.columns has 2"):
            read_file(write("a.csv", content), ["class", "text"])


def test_compressed_csv(write):
    for name in ("a.csv.gz", "A.CSV.GZ", "packed.csv"):
        assert cells(read_file(write(name, gzip.compress(b"text,label\na,1\n")))) == [["a", "1"]]


def test_json_list_and_parquet_have_rows_in_place_of_lines(write, tmp_path):
    assert read_file(write("a.json", '[{"text": "a"},\n {"text": "b"}]')).place(1).endswith("a.json, row 2")
    pd.DataFrame({"text": ["a", "b"], "label": [True, False]}).to_parquet(tmp_path / "a.parquet")
    table = read_file(tmp_path / "a.parquet")
    assert cells(table) == [["a", True], ["b", False]]
    assert table.place(0).endswith("a.parquet, row 1")


def test_index_of_a_parquet_file_is_a_column(tmp_path):
    pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]}).set_index("text").to_parquet(tmp_path / "a.parquet")
    assert sorted(read_file(tmp_path / "a.parquet").frame.columns) == ["label", "text"]


def test_parquet_of_bytes_holds_strings_where_they_are_utf8(tmp_path):
    columns = {
        "text": pa.array(["größer".encode(), None]),
        "label": pa.array(["a", "b"]).cast(pa.binary()).dictionary_encode(),
        "topics": pa.array([[b"x", b"y"], []]),
        "image": pa.array([b"\xff\xd8", b"jpeg"]),
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "spark.parquet")
    expected = [["größer", "a", ["x", "y"], b"\xff\xd8"], [None, "b", [], "jpeg"]]
    assert cells(read_file(tmp_path / "spark.parquet")) == expected


def test_parquet_with_numbers_as_column_names_has_strings(tmp_path):
    pd.DataFrame([("a", 1), ("b", 2)]).to_parquet(tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet").frame.to_dict("list") == {"0": ["a", "b"], "1": [1, 2]}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "", r"a\.csv is empty"),
        ("a.csv", " \n\n", r"a\.csv is empty"),
        ("a.csv", b"\xef\xbb\xbf\n", r"a\.csv is empty"),
        ("a.csv", "text,label\na,1\nb\n", r"a\.csv, line 3: 1 fields where the header has 2"),
        ("a.csv", 'text,label\n"a\nb",1\nc,d,1\n', r"a\.csv, line 4: 3 fields where the header has 2"),
        ("a.tsv", "text\tlabel\na\tb\t1\n", r"a\.tsv, line 2: 3 fields where the header has 2; remove or quote tabs"),
        ("a.csv", 'text,label\na,1\n"b,1\nc,2\n', r"a\.csv, line 3: 1 fields where .*close every quote"),
        ("a.csv", 'label,text\n1,a\n1,"b\n2,c\n', r"a\.csv, line 3: a quote is opened here and never closed"),
        ("a.csv", "text,label,text\na,1,b\n", r"a\.csv, line 1: the column name 'text' occurs twice"),
        ("a.csv", b"text,label\na,1\n\xe9t\xe9,2\n", r"a\.csv, line 3: byte 15 is not UTF-8; save the file as UTF-8"),
        ("a.csv", "text,label\na,1\n".encode("utf-16"), r"a\.csv, line 1: byte 0 is not UTF-8"),
        ("a.csv", "text,label\na,1\n".encode("utf-16-le"), r"a\.csv, line 1: byte 1 is zero"),
        ("a.jsonl", '{"text": "a"}\n\n{"text": "b"\n', r"a\.jsonl, line 3: not a JSON object"),
        ("a.jsonl", '{"text": "a"}\n7\n', r"a\.jsonl, line 2: int found where an object"),
        ("a.json", '[{"text": "a"},\n{"text" "b"}]', r"a\.json, line 2: not JSON"),
        ("a.parquet", "no", r"a\.parquet cannot be read as Parquet"),
        ("a.csv.gz", gzip.compress(b"text,label\na,1\n", mtime=0)[:-9], r"a\.csv\.gz cannot be read"),
        ("a.csv", "text|label\na, b|1\n", r"a\.csv has bars between its columns"),
        ("a.csv", "text;label\na, b;1\n", r"a\.csv has semicolons between its columns"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl: not JSON that can be read"),
        ("a.jsonl", '{"text": "a"}\n' + '{"a":' * 100_000, r"a\.jsonl, line 2: not a JSON object"),
        ("a.json", "[]", r"a\.json has no rows"),
        ("a.json", "{}", r"a\.json has no rows"),
        ("a.jsonl", r'{"te\ud83dxt": "a"}', "column name .* holds half a surrogate pair"),
        ("a.xlsx", "no", r"a\.xlsx: this kind of file is not known; data\.source reads \.csv, \.tsv, \.jsonl"),
    ],
)
def test_broken_file_is_one_sentence_with_its_place(write, name, content, sentence):
    with pytest.raises(UserError, match=sentence):
        read_file(write(name, content))
