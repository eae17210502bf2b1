import numpy as np
import pandas as pd
import pytest

from adabert_core.data.labels import class_names, in_order, is_measure


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1, 2, 5], ["1", "2", "5"]),
        ([1.0, 2.0], ["1", "2"]),
        (["1.0", "2", " 3 "], ["1", "2", "3"]),
        ([True, False], ["True", "False"]),
        ([np.int64(-1), np.float64(0)], ["-1", "0"]),
        (["01", "v1.0", "1.5"], ["01", "v1.0", "1.5"]),
        ([" good", None, "  ", float("nan")], ["good", None, None, None]),
        (["0", "nan", "1.0", "NA", ""], ["0", None, "1", None, None]),
        (["0.5", "None", "null"], ["0.5", None, None]),
        (["a", "0", "NA", "None"], ["a", "0", "NA", "None"]),
        (["NA", "nan"], ["NA", "nan"]),
    ],
)
def test_one_name_per_class_whatever_the_type(values, names):
    found = class_names(pd.Series(values, dtype=object))
    assert [None if pd.isna(name) else name for name in found] == names


def test_whole_numbers_are_ordered_by_value_and_words_by_letter():
    column = pd.Series(["x"])
    assert in_order({"10", "9", "-1"}, column) == ["-1", "9", "10"]
    assert in_order({"b", "10", "9"}, column) == ["10", "9", "b"]


def test_order_of_the_dataset_comes_first():
    column = pd.Series(pd.Categorical(["no"], categories=["yes", "no", "maybe"], ordered=True))
    assert in_order({"no", "yes"}, column) == ["yes", "no"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [({"1", "2"}, False), ({"0.5", "1"}, True), ({"0.5", "a"}, False), ({"1e-3"}, True)],
)
def test_numbers_that_are_not_whole_are_measures(names, expected):
    assert is_measure(names) is expected
