"""Pairs of three classes, one of them rare, with a teacher of another family: the whole way."""

import json
import random
import subprocess
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.whole_run import ROOT, command, predictions, settings


@pytest.mark.integration
def test_imbalanced_pairs_of_three_classes_with_a_teacher_of_another_family(tmp_path: Path, roberta_folder: Path) -> None:
    rng = random.Random(0)
    words = {"same": ("good", "great"), "other": ("bad", "awful"), "none": ("story", "plot")}
    with (tmp_path / "pairs.tsv").open("w") as stream:
        stream.write("first\tsecond\trelation\n")
        for i in range(400):
            relation = "same" if i % 10 else ("other" if i % 20 else "none")
            noise = [
                " ".join(rng.choices(("the", "film", "cast", "was", "very", "it", "of"), k=rng.randint(2, 9))) for _ in range(2)
            ]
            stream.write(f"{noise[0]} {words[relation][0]}\t{words[relation][1]} {noise[1]}\t{relation}\n")
    values = ["data.text=[first,second]", "data.label=relation", *settings(tmp_path / "pairs.tsv", roberta_folder)[1::2]]
    output = tmp_path / "run"
    done = subprocess.run(
        command(output, *[part for value in values for part in ("--set", value)]), capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "benchmark" / "report.json").read_text())
    assert report["labels"] == ["none", "other", "same"]
    assert report["metric"] == "macro_f1"  # one class has over 75 % of the rows
    student = json.loads((output / "retrain" / "config.json").read_text())
    assert (student["separator_id"], student["alignment"]) == (2, True)
    with safe_open(output / "search" / "supernet.safetensors", "np") as supernet:
        assert "distilled.network.alignment.compare.weight" in supernet.keys()  # noqa: SIM118 - no mapping
    assert predictions(output, "the film good", "great cast", "it was bad", "awful film")[0] in report["labels"]
    assert len(predictions(output, "the film good", "great cast", "it was bad", "awful film")) == 2
