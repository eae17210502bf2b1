"""The four names for notebooks: what they refuse, and where they find a student. A whole run: test_docs."""

from pathlib import Path

import pytest

from adabert_core.api import Report, compress, load, predict
from adabert_core.errors import UserError
from adabert_core.register import pack_model
from adabert_core.serving import Predictor
from tests.test_serving import folder  # noqa: F401 - the fixture: a StudentDir with random weights

TEXTS = ["a superb film", "dull and awful"]


def test_settings_and_rows_are_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean search.beta"):
        compress("rows.csv", output=tmp_path / "run", search={"betta": 1})
    with pytest.raises(UserError, match="no preset of that name"):
        compress("rows.csv", output=tmp_path / "run", preset="nothing")
    with pytest.raises(UserError, match="no such file or folder"):
        compress(tmp_path / "rows.csv", output=tmp_path / "run", tracking_uri="")
    assert not (tmp_path / "run" / "finetune_teacher").exists()


def test_missing_report_and_student_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no report"):
        Report.read(tmp_path)
    with pytest.raises(UserError, match="holds no student"):
        load(tmp_path)
    with pytest.raises(UserError, match="list of texts"):
        predict(tmp_path, "a film")


def test_student_is_loaded_from_a_run_a_student_or_a_served_folder(folder: tuple, tmp_path: Path) -> None:  # noqa: F811
    path, _, _, pair = folder
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "retrain").symlink_to(path)
    pack_model(path, tmp_path / "served")
    texts = [tuple(TEXTS)] if pair else TEXTS
    expected = Predictor(path)(texts)
    for place in (tmp_path / "run", path, tmp_path / "served"):
        assert load(place).pair is pair
        assert predict(place, texts) == expected
    assert predict(load(str(path)), texts) == expected


def test_precision_is_checked_before_the_folder(folder: tuple) -> None:  # noqa: F811
    with pytest.raises(UserError, match=r"^precision=in8 is not known: choose auto, fp32 or int8\.$"):
        load(folder[0], precision="in8")
