"""Four names for notebooks and programs: compress, load, predict, Report. Thin over runner, serving and report.

Comes in: rows, or the folder of a run. Goes out: a report, a loaded student, answers. `load` and `predict` need no torch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adabert_core.config_file import parse_run_config, read_yaml
from adabert_core.errors import UserError
from adabert_core.presets import find_preset
from adabert_core.report import load_report, table, table_text

if TYPE_CHECKING:
    from adabert_core.serving import Predictor

__all__ = ["Report", "compress", "load", "predict"]


@dataclasses.dataclass(frozen=True)
class Report:
    """What a finished run came to. `content` is its report.json, `page` the path of report.html, `path` the run's folder."""

    path: Path
    page: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> "Report":
        """Returns the report of a run's folder.

        Raises:
            UserError: there is no report there.
        """
        content, page = load_report(Path(path))
        return cls(Path(path), page, content)

    @property
    def verdict(self) -> str:
        """One sentence: what was kept, how much smaller, how much faster."""
        return str(self.content["verdict"])

    @property
    def table(self) -> list[list[str]]:
        """Rows of models below a row of headings."""
        return table(self.content)

    @property
    def retention(self) -> float:
        """Student over teacher on the test split."""
        return float(self.content["retention"])

    @property
    def student(self) -> Path:
        """The StudentDir: a Hugging Face model with its ONNX files."""
        return self.path / "retrain"

    def __str__(self) -> str:
        return f"{table_text(self.content)}\n\n{self.verdict}"

    def _repr_html_(self) -> str:
        head, *rows = [[escape(cell) for cell in row] for row in self.table]
        body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
        return f"<table><tr><th>{'</th><th>'.join(head)}</th></tr>{body}</table><p>{escape(self.verdict)}</p>"


def compress(
    source: str | Path,
    *,
    output: str | Path,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    preset: str | Path = "quickstart",
    stage_cache: str = "",
    **settings: Any,
) -> Report:
    """Runs the seven stages on the rows of `source` and returns the report; what is done in `output` already is kept.

    Args:
        source: a file or folder, s3://, `hf:` or `builtin:` rows.
        output: the run's folder.
        text: column of the texts, two for pairs; default: the preset's.
        label: column of the labels; default: the preset's.
        preset: an installed preset's name, or a YAML file.
        stage_cache: folder in which long stages are kept for other runs.
        settings: the preset's keys and sections, such as `seed=1` or `search={"beta": 0.1}`.

    Raises:
        UserError: a setting or the rows are not as they must be.
    """
    from adabert_core.runner import run_all, tracked_here

    raw = read_yaml(find_preset(Path(preset)), ())
    rows = {"source": str(source), "text": text if text is None or isinstance(text, str) else list(text), "label": label}
    for key, value in [("data", {name: given for name, given in rows.items() if given is not None}), *settings.items()]:
        raw[key] = {**(raw.get(key) or {}), **value} if isinstance(value, Mapping) else value
    run_all(tracked_here(parse_run_config(raw)), Path(output), stage_cache=stage_cache)
    return Report.read(output)


def load(path: str | Path, threads: int = 1, precision: str = "auto") -> "Predictor":
    """Returns the student of a run's folder, a StudentDir or an exported one: texts in, labels and scores out.

    Args:
        path: the folder.
        threads: threads of the ONNX session, 0 for all cores.
        precision: fp32, int8, or auto, which is int8 where that has passed its gate.

    Raises:
        UserError: there is no student there, or no such precision.
    """
    if precision not in ("auto", "fp32", "int8"):
        raise UserError(f"precision={precision} is not known: choose auto, fp32 or int8.")
    from adabert_core.serving import Predictor

    try:
        return Predictor(student_folder(Path(path)), threads, precision)
    except Exception as error:  # whatever is missing or not a model, the cure is the same
        raise UserError(
            f"{path} holds no student, or a damaged one: give the retrain folder of a finished run, e.g. runs/x/retrain."
        ) from error


def student_folder(path: Path) -> Path:
    """Returns the StudentDir of a run's folder; any other folder is taken for one."""
    inner = path / "retrain"
    return inner if inner.is_dir() else path


def predict(model: "str | Path | Predictor", texts: Sequence[str | tuple[str, str]]) -> list[dict[str, Any]]:
    """Returns label, score and all scores of each text (or pair), from a folder or from what `load` returned.

    Raises:
        UserError: there is no student there, or `texts` is one text.
        ValueError: single texts for a student of pairs, or the other way round.
    """
    if isinstance(texts, str):  # whose letters would be classified
        raise UserError("predict takes a list of texts: write [text] for one.")
    predictor = load(model) if isinstance(model, str | Path) else model
    return predictor(texts)
