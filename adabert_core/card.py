"""A run's student as a folder for a model hub: the StudentDir's files and a model card, README.md.

Comes in: the folder of a finished run. Goes out: the folder, whole or not at all. Nothing is uploaded here.
"""

import shutil
from pathlib import Path
from typing import Any

from adabert_core import __version__
from adabert_core.artifacts import MANIFEST, Manifest, read_json, read_manifest, whole_directory
from adabert_core.errors import UserError
from adabert_core.report import load_report, table
from adabert_core.search_space import Genotype
from adabert_core.stages import check_one_run


def export_run(run: Path, target: Path) -> None:
    """Writes the student of a run with its card into `target`, which must not be there yet.

    Raises:
        UserError: the run has no report, no student or those of two runs, or there is something at `target`.
    """
    report, _ = load_report(run)
    student = run / "retrain"
    made = read_manifest(student, "retrain")
    check_one_run({"student": made, "benchmark": read_manifest(run / "benchmark", "benchmark")})
    if target.exists():
        raise UserError(f"--to {target} is there already: name a folder that is not.")
    aligned = bool(read_json(student / "config.json").get("alignment"))
    with whole_directory(target, replace=False) as scratch:
        shutil.copytree(student, scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        (scratch / "README.md").write_text(card(report, made, aligned), encoding="utf-8")


def card(report: dict[str, Any], made: Manifest, aligned: bool = False) -> str:
    """The model card: front matter as model hubs read it, verdict, table, structure, use and limits; `aligned` for pairs."""
    from adabert_core.pages import rendered  # here: a finished student answers without jinja2

    genotype, teacher = report["student"]["genotype"], str(report["teacher"]["name"])
    if teacher.startswith(("/", ".", "~", "s3://")):  # where it is, is nobody's business
        teacher = teacher.rstrip("/").rpartition("/")[2]
    head, *rows = table(report)
    values = {
        "report": report,
        "score": report["student"]["metrics"]["test"]["onnx"]["score"],
        "teacher": teacher,
        "head": head,
        "rows": rows,
        "words": str(Genotype.from_dict(genotype)) if report["student"]["architecture"] == "adabert" else "",
        "aligned": aligned,
        "version": __version__,
        "commit": made.git_sha,
        "seed": made.seed,
    }
    return rendered("card.md.j2", values)
