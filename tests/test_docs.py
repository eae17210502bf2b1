"""Every code block of the guide is run, in a folder with few rows, a tiny teacher, and a tiny preset by the name of quickstart.

`adabert` and `pipelines.run` run in this process, `make` only says what it would do. A block that is not run says why above it.
"""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import pytest
import yaml

from adabert_core import presets
from adabert_core.api import Report, compress
from adabert_core.artifacts import read_manifest, write_manifest
from adabert_core.card import card, export_run
from adabert_core.cli import cli
from adabert_core.errors import UserError
from tests.conftest import sentences

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [DOCS / "index.md", *sorted((DOCS / "guide").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
TINY = {
    "name": "tiny",
    "tracking_uri": "",
    "teacher": {"model": "teacher", "epochs": 1, "learning_rate": 0.003},
    "targets": {"augmented_rows": 100, "probe_epochs": 2},
    "search": {"k_max": 2, "channels": 16, "epochs": 1, "optimizer": "adamw", "learning_rate": 0.002},
    "retrain": {"epochs": 3, "evaluations": 1},
    "benchmark": {"batches": [1], "lengths": [16], "seconds": 0.05, "bert_base": False},
    "register": {"min_retention": 0.0},
}


def expanded(page: Path) -> str:
    """A page with the files that it shows."""
    return re.sub(r'--8<-- "(.+)"', lambda found: (DOCS / "examples" / found[1]).read_text().rstrip("\n"), page.read_text())


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Iterator[Path]:
    """The folder that the guide speaks of, with a finished run in runs/mine that is runs/quickstart as well."""
    place = tmp_path_factory.mktemp("work")
    shutil.copytree(bert_folder, place / "teacher")
    with (place / "reviews.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("body", "stars"), *sentences(300, seed=0)])
    with (place / "december.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("body", "stars"), *sentences(20, seed=1)])
    (place / "texts.jsonl").write_text('a superb film\n{"text": "dull and awful"}\n')
    configs = place / "pipelines" / "configs"
    configs.mkdir(parents=True)
    (configs / "quickstart.yaml").write_text(yaml.safe_dump(TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "FOLDER", configs)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(place)
        compress("reviews.csv", text="body", label="stars", output="runs/mine", stage_cache="runs/cache")
        (place / "runs" / "quickstart").symlink_to("mine")
        yield place


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_code_blocks_run(page: Path, workplace: Path, command: Callable[..., Any]) -> None:
    text, names = expanded(page), {"__name__": page.stem}
    blocks = list(BLOCK.finditer(text))
    assert 2 * len(blocks) == len(re.findall("^```", text, re.MULTILINE)), "a block without a language"
    for block in blocks:
        assert block["language"] in ("sh", "python", "csv", "diff")
        if block["reason"]:
            continue
        if block["language"] == "python":
            exec(compile(block["code"], str(page), "exec"), names)
        elif block["language"] == "sh":
            for line in block["code"].replace("\\\n", " ").splitlines():
                run_line(shlex.split(line), command)


def run_line(words: list[str], command: Callable[..., Any]) -> None:
    """Runs one command of a page; anything unknown fails."""
    if words[0] == "make":
        done = subprocess.run(["make", "-n", "VENV=/none", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif words[:3] == ["python", "-m", "pipelines.run"]:
        done = command(*words[3:])
        assert done.code == 0, done.error
    else:
        assert words[0] == "adabert"
        cli.main(words[1:], "adabert", standalone_mode=False)


def test_blocks_that_are_not_run_name_tests_that_exist() -> None:
    reasons = [block["reason"] for page in PAGES for block in BLOCK.finditer(page.read_text()) if block["reason"]]
    for name in re.findall(r"tests/[\w/]+\.py", " ".join(reasons)):
        assert (ROOT / name).is_file(), name


def test_examples_are_short() -> None:
    for path in (DOCS / "examples").iterdir():
        if path.is_file():
            assert len([line for line in path.read_text().splitlines() if line.strip()]) < 40, path


def test_swapping_augmenter_keeps_the_tokens_of_a_text() -> None:
    import numpy as np

    from adabert_core.augment import GENERATORS
    from adabert_core.tokens import Ragged, TokenRows

    exec((DOCS / "examples" / "augmenter.py").read_text(), {})
    rows = TokenRows(Ragged.of([[1, 2, 3], [], [7], [8, 9]]), None)
    made = GENERATORS.pop("swap")(rows, np.array([3, 0, 1, 2]), np.zeros(4), np.zeros((0, 1)), 0.3, np.random.default_rng(0)).a
    texts = [made.values[a:b].tolist() for a, b in zip(made.offsets[:-1], made.offsets[1:], strict=True)]
    assert texts[0] == [9, 8]
    assert texts[1] in ([2, 1, 3], [1, 3, 2])
    assert texts[2:] == [[], [7]]


def test_new_operation_is_the_same_in_torch_and_onnx(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "adabert_core", tmp_path / "adabert_core", ignore=shutil.ignore_patterns("__pycache__"))
    apply = ["git", "apply", "-p0", str(DOCS / "examples" / "operation.diff")]
    done = subprocess.run(apply, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "check.py").write_text(CHECK)
    here = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "check.py"], cwd=tmp_path, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


CHECK = """
import json, pathlib, torch, onnxruntime
from adabert_core.export import export_student
from adabert_core.search_space import PRIMITIVES, Genotype, size_flops_costs
from adabert_core.student import AdaBertConfig, AdaBertForSequenceClassification

assert len(size_flops_costs(8)) == len(PRIMITIVES) == 11
words = "2 x 0>2 min_pool_3, 1>2 conv_3, 0>3 min_pool_3, 2>3 max_pool_3, 1>4 identity, 3>4 min_pool_3"
settings = AdaBertConfig(vocab_size=50, channels=8, genotype=json.loads(Genotype.parse(words).to_json()))
torch.manual_seed(0)
student = AdaBertForSequenceClassification(settings).eval()
export_student(student, pathlib.Path("model.onnx"))
session = onnxruntime.InferenceSession("model.onnx")
ids, mask = torch.randint(1, 50, (3, 9)), torch.arange(9) < torch.tensor([[9], [4], [1]])
with torch.no_grad():
    expected = student(ids, mask.long()).logits
(found,) = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.long().numpy()})
assert torch.allclose(torch.from_numpy(found), expected, atol=1e-5), (found, expected)
assert torch.allclose(student(ids[1:2, :4]).logits, expected[1:2], atol=1e-5)
"""


def test_notebook_runs(workplace: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    (given,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    given.source = (
        "rows = {'source': 'reviews.csv', 'text': 'body', 'label': 'stars'}\n"
        "preset = 'pipelines/configs/quickstart.yaml'\noutput = 'runs/mine'"
    )
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(workplace)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    (table,) = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert escape(Report.read(workplace / "runs" / "mine").verdict) in table
    answers = next(output.data["text/plain"] for output in shown if "'scores'" in output.get("data", {}).get("text/plain", ""))
    assert answers.count("'label'") == 2


def test_exported_student_has_a_card_with_table_and_genotype(workplace: Path, tmp_path: Path) -> None:
    run, target = workplace / "runs" / "mine", tmp_path / "student"
    export_run(run, target)
    report = Report.read(run)
    kept = {path.relative_to(run / "retrain") for path in (run / "retrain").rglob("*") if path.name != "manifest.json"}
    assert {path.relative_to(target) for path in target.rglob("*")} == {*kept, Path("README.md")}
    _, front, text = (target / "README.md").read_text().split("---\n", 2)
    settings = yaml.safe_load(front)
    assert (settings["library_name"], settings["pipeline_tag"]) == ("transformers", "text-classification")
    (metric,) = settings["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == round(report.content["student"]["metrics"]["test"]["onnx"]["score"], 4)
    for row in report.table:
        assert f"| {' | '.join(row)} |" in text
    assert report.verdict in text
    assert re.search(r"\n[12] x 0>2 \w+, .*4 \w+\n", text)
    with pytest.raises(UserError, match="is there already"):
        export_run(run, target)
    mixed = tmp_path / "mixed"
    shutil.copytree(run, mixed)
    manifest = read_manifest(mixed / "retrain", "retrain")
    write_manifest(mixed / "retrain", replace(manifest, config={**manifest.config, "seed": 99}))
    with pytest.raises(UserError, match="^benchmark and retrain are of two runs"):
        export_run(mixed, tmp_path / "other")


def test_card_of_a_peer_names_its_architecture_and_no_place_of_this_machine(workplace: Path) -> None:
    report = json.loads((workplace / "runs" / "mine" / "benchmark" / "report.json").read_text())
    report["student"] |= {"architecture": "bilstm", "genotype": {}}
    report["teacher"]["name"] = "/home/me/models/bert/"
    text = card(report, read_manifest(workplace / "runs" / "mine" / "retrain", "retrain"))
    assert "A bilstm, trained on what the teacher knows" in text
    assert "Teacher: bert, fine-tuned" in text
    assert "/home/me" not in text


def test_figures_are_what_the_code_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "figures"))
    from draw import main

    main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (DOCS / "figures").glob("*.svg")}
    for path in tmp_path.iterdir():
        assert path.read_text() == (DOCS / "figures" / path.name).read_text(), "run python docs/figures/draw.py"


def test_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^\" >]+", page.read_text())
        assert loaded == [], page.name
    assert (tmp_path / "site" / "guide" / "troubleshooting.html").is_file()
