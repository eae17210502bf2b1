"""The settings of a run, as few as say it all, and a file that gives them back."""

import dataclasses
from pathlib import Path

from adabert_core.config_file import load_run_config, parse_run_config
from adabert_core.reproduce import changed_settings, settings_text


def test_settings_are_those_that_differ_from_the_defaults() -> None:
    config = parse_run_config({"seed": 7, "data": {"source": "rows.csv"}, "search": {"beta": 0.0}, "teacher": {"seed": 9}})
    sections = {name: dataclasses.asdict(getattr(config, name)) for name in ("data", "search", "retrain")}
    assert changed_settings(sections) == {"seed": 7, "data": {"source": "rows.csv"}, "search": {"beta": 0.0}}
    sections["teacher"] = dataclasses.asdict(config.teacher)
    found = changed_settings(sections)
    assert (found["teacher"], found["search"], "seed" in found) == ({"seed": 9}, {"beta": 0.0, "seed": 7}, False)


def test_text_is_a_config_that_gives_the_same_settings(tmp_path: Path) -> None:
    text = settings_text({"search": {"k_max": 4}, "seed": 42, "data": {"source": "rows.csv"}})
    assert text == "seed: 42\ndata: {source: rows.csv}\nsearch: {k_max: 4}\n"
    (tmp_path / "again.yaml").write_text(text)
    config = load_run_config(tmp_path / "again.yaml")
    assert (config.data.source, config.search.k_max, config.search.seed, config.retrain.seed) == ("rows.csv", 4, 42, 42)
