import numpy as np
import pandas as pd

from adabert_core.data.splits import SPLITS, complete_splits, drop_duplicates, limit_train, with_keys


def keyed(rows):
    return with_keys(pd.DataFrame(rows, columns=["text_a", "label"]))


def carved(rows, validation=0.1, test=0.1):
    return complete_splits({"train": keyed(rows)}, validation, test)


def homes(splits):
    return {text: split for split in SPLITS for text in splits[split]["text_a"]}


def numbered(start, stop, classes=2):
    return [(f"text number {i}", i % classes) for i in range(start, stop)]


def test_shares_follow_the_fractions_within_every_class():
    splits = carved(numbered(0, 4000))
    assert {split: len(frame) for split, frame in splits.items()} == {"train": 3179, "validation": 419, "test": 402}
    assert splits["test"]["label"].value_counts().to_dict() == {0: 188, 1: 214}


def test_added_rows_move_no_old_row():
    old = homes(carved(numbered(0, 1000)))
    new = homes(carved(numbered(0, 3000)))
    assert len(old) == 1000
    assert {text: new[text] for text in old} == old


def test_home_does_not_depend_on_label_or_order():
    rows = numbered(0, 1000)
    flipped = [(text, 1 - label) for text, label in reversed(rows)]
    assert homes(carved(rows)) == homes(carved(flipped))


def test_rare_class_is_in_every_split_whatever_its_texts():
    for seed in range(30):
        rows = numbered(0, 200) + [(f"rare {seed} {i}", 2) for i in range(10)]
        splits = carved(rows)
        assert all(2 in set(splits[split]["label"]) for split in SPLITS)
        assert len(homes(splits)) == 210


def test_rare_class_is_in_train_when_train_is_small():
    splits = carved(numbered(0, 20, classes=2), validation=0.45, test=0.5)
    assert all(set(splits[split]["label"]) == {0, 1} for split in SPLITS)


def test_lending_to_a_rare_class_moves_only_its_own_rows():
    common = numbered(0, 500)
    with_rare = homes(carved(common + [(f"rare {i}", 2) for i in range(10)]))
    assert {text: with_rare[text] for text, _ in common} == homes(carved(common))


def test_published_splits_stay_as_they_are():
    rows = {"train": keyed(numbered(0, 100)), "test": keyed(numbered(100, 120)), "validation": keyed(numbered(120, 140))}
    splits = complete_splits(rows, 0.1, 0.1)
    assert {split: len(frame) for split, frame in splits.items()} == {"train": 100, "validation": 20, "test": 20}


def test_validation_is_carved_from_train_beside_a_published_test():
    rows = {"train": keyed(numbered(0, 1000)), "test": keyed(numbered(1000, 1020))}
    splits = complete_splits(rows, 0.1, 0.1)
    assert {split: len(frame) for split, frame in splits.items()} == {"train": 899, "validation": 101, "test": 20}


def test_texts_in_two_splits_are_removed_from_the_one_that_learns():
    rows, removed = drop_duplicates(
        {
            "train": keyed([("only train", 0), ("in  test ", 0), ("In test", 0), ("in validation", 1)]),
            "validation": keyed([("in validation", 1), ("in\ttest", 1), ("only validation", 0)]),
            "test": keyed([("in test", 0), ("only test", 1)]),
        }
    )
    assert {split: sorted(frame["text_a"]) for split, frame in rows.items()} == {
        "train": ["In test", "only train"],
        "validation": ["in validation", "only validation"],
        "test": ["in test", "only test"],
    }
    assert removed == {
        "duplicates": 0,
        "conflicting_labels": 0,
        "validation_rows_in_test": 1,
        "train_rows_in_test": 1,
        "train_rows_in_validation": 1,
    }


def test_composed_and_decomposed_letters_are_the_same_text():
    rows, removed = drop_duplicates({"train": keyed([("caf\u00e9", 0), ("cafe\u0301", 0), ("cafe", 0)])})
    assert removed["duplicates"] == 1
    assert len(rows["train"]) == 2


def test_conflicting_labels_keep_the_majority_and_drop_ties():
    rows, removed = drop_duplicates({"train": keyed([("a", 0), ("a", 1), ("a", 1), ("b", 0), ("b", 1), ("c", 0)])})
    assert rows["train"][["text_a", "label"]].values.tolist() == [["a", 1], ["c", 0]]
    assert (removed["conflicting_labels"], removed["duplicates"]) == (3, 1)


def test_published_test_rows_keep_conflicting_labels():
    rows, removed = drop_duplicates({"train": keyed([("a", 0)]), "test": keyed([("b", 0), ("b", 1), ("b", 1)])})
    assert rows["test"][["text_a", "label"]].values.tolist() == [["b", 0], ["b", 1]]
    assert (removed["conflicting_labels"], removed["duplicates"]) == (0, 1)


def test_pairs_are_duplicates_only_when_both_texts_are():
    pairs = pd.DataFrame({"text_a": ["a", "a", "a b"], "text_b": ["b c", "b  c", "c"], "label": [0, 0, 0]})
    rows, removed = drop_duplicates({"train": with_keys(pairs)})
    assert removed["duplicates"] == 1
    assert rows["train"][["text_a", "text_b"]].values.tolist() == [["a", "b  c"], ["a b", "c"]]


def test_limit_keeps_the_same_rows_whatever_the_order():
    rows = keyed(numbered(0, 50))
    first, left_out = limit_train({"train": rows}, 20)
    second, _ = limit_train({"train": rows[::-1]}, 20)
    assert left_out == 30
    assert sorted(first["train"]["text_a"]) == sorted(second["train"]["text_a"])
    assert first["train"]["point"].max() < np.sort(rows["point"])[20]
