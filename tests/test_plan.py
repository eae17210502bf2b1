"""What a plan counts, what it measures with the stages' own code, and when it refuses."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from adabert_core import plan as plan_module
from adabert_core.calibration import StepClock, TimeIsUp
from adabert_core.cli import cli
from adabert_core.config import RunConfig
from adabert_core.config_file import load_run_config
from adabert_core.errors import UserError
from adabert_core.plan import Line, Plan, check_memory, check_minutes, make_plan, table_text
from adabert_core.search_space import EDGES
from adabert_core.training import LengthBuckets
from adabert_core.workload import Rows, TeacherSizes, Work, augmented_rows, trial_steps, workload
from tests.whole_run import SMOKE, settings

MINILM = TeacherSizes(parameters=22_700_000, hidden=384, inner=1536, layers=6, heads=12, vocabulary=30522)
GB = 1e9


def rows(train: int = 1000, length: int = 20) -> Rows:
    """Rows of one length, two of its tokens special."""
    counts = {"train": train, "validation": train // 10, "test": train // 10, "unlabeled": 0}
    return Rows({name: np.full(count, length) for name, count in counts.items()}, 2, 2, MINILM)


def config(**sections: dict[str, object]) -> RunConfig:
    found = RunConfig()
    for name, values in sections.items():
        found = dataclasses.replace(found, **{name: dataclasses.replace(getattr(found, name), **values)})
    return found


def work_of(stage: str, settings: RunConfig, given: Rows) -> Work:
    return next(part for part in workload(settings, given) if part.stage == stage)


@pytest.fixture(scope="module")
def plan(learnable_csv: Path, bert_folder: Path) -> Plan:
    """The smoke preset's plan on 300 rows and a tiny teacher, measured for less than a second."""
    values = [value for value in settings(learnable_csv, bert_folder) if value != "--set"]
    return make_plan(load_run_config(SMOKE, values), seconds=0.4)


def test_plan_counts_rows_and_steps_as_the_run_will(plan: Plan) -> None:
    train, tokens = plan.splits["train"]
    assert sum(count for count, _ in plan.splits.values()) == pytest.approx(300, abs=10)  # without duplicates
    assert 6 * train < tokens < 16 * train  # 5 to 12 words and two special tokens
    steps = {line.stage: line.steps for line in plan.lines}
    assert steps["finetune_teacher"] == -(-train // 32)
    assert steps["retrain"] == -(-(train + 200) // 128)
    assert list(steps) == ["prepare_data", "finetune_teacher", "distill_targets", "search", "retrain", "benchmark"]


def test_plan_measures_every_stage_and_fits_this_machine(plan: Plan) -> None:
    assert all(line.seconds > 0 for line in plan.lines)
    assert plan.seconds < 600
    assert 0.1 * GB < plan.bytes < 2 * GB < plan.available
    assert re.search(r"about \d+\.\d minutes \(prepare_data .*benchmark \d", str(plan))


def test_plan_counts_the_unlabeled_text_that_is_used(learnable_csv: Path, bert_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("\n".join(["text", *(f"word{i} of a film" for i in range(30))]))
    values = [value for value in settings(learnable_csv, bert_folder) if value != "--set"]
    values += [f"data.unlabeled={tmp_path}/more.csv", "targets.unlabeled_rows=12"]
    assert make_plan(load_run_config(SMOKE, values), seconds=0.2).splits["unlabeled"][0] == 12


def test_table_has_rows_stages_and_a_sum() -> None:
    lines = [Line("search", 600, 2.5e6, 90.0, 1.5e9), Line("benchmark", 0, 0.0, 30.0, 3.5e9)]
    text = table_text(Plan({"train": (8063, 200_000)}, lines, 16e9)).split("\n")
    assert text[1].split() == ["train", "8,063", "200,000"]
    assert [line.split() for line in text[4:]] == [
        ["search", "600", "2.5", "M", "1.5", "1.5"],
        ["benchmark", "-", "-", "0.5", "3.5"],
        ["together", "2.0", "3.5"],
    ]


def test_too_many_minutes_are_refused_with_the_longest_stages_settings() -> None:
    plan = Plan({}, [Line("search", 1, 0.0, 300.0, 0.0), Line("retrain", 1, 0.0, 60.0, 0.0)], 1.0)
    check_minutes(plan, 6.0)
    with pytest.raises(UserError, match=r"about 6\.0 minutes, more than 5; search takes 5\.0 of them: lower search\.max_steps"):
        check_minutes(plan, 5.0)


def test_too_much_memory_is_refused_with_the_largest_batch_that_fits() -> None:
    given, settings = rows(length=512), config(teacher={"batch_size": 256}, benchmark={"bert_base": False})
    need = [work_of("finetune_teacher", config(teacher={"batch_size": size}), given).bytes for size in (256, 128, 64)]
    work = [part for part in workload(settings, given) if part.stage == "finetune_teacher"]
    check_memory(settings, given, work, GB, need[0] + GB)
    with pytest.raises(UserError, match=r"finetune_teacher would need about .* GB .*: set teacher\.batch_size=128\.$"):
        check_memory(settings, given, work, GB, need[1] + GB)
    with pytest.raises(UserError, match=r"set teacher\.batch_size=64\.$"):
        check_memory(settings, given, work, GB, need[1] + GB - 1)


def test_attention_over_long_texts_is_counted_where_a_cpu_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that takes steps of 32 texts of 384 tokens peaked at 9.3 GB, of 128 tokens at 2.0 (docs/SCALING.md)."""
    long, usual = (work_of("finetune_teacher", config(), rows(length=length)).bytes for length in (384, 128))
    assert 6.0 * GB < long - usual < 9.0 * GB
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert work_of("finetune_teacher", config(), rows(length=384)).bytes < 0.5 * long


def test_a_benchmark_that_does_not_fit_leaves_out_bert_base_and_what_nothing_helps_says_so() -> None:
    given, work = rows(), [work_of("benchmark", config(), rows())]
    with pytest.raises(UserError, match=r"set benchmark\.bert_base=false\.$"):
        check_memory(config(), given, work, GB, work[0].bytes)
    with pytest.raises(UserError, match="smaller teacher.model"):
        check_memory(config(), given, work, GB, GB)


def test_more_of_a_setting_is_more_memory_and_more_tokens() -> None:
    usual = {part.stage: part for part in workload(config(), rows())}
    more = {part.stage: part for part in workload(config(search={"channels": 256}, retrain={"batch_size": 512}), rows())}
    assert more["search"].bytes > usual["search"].bytes
    assert more["retrain"].bytes > usual["retrain"].bytes
    assert more["finetune_teacher"] == usual["finetune_teacher"]
    assert work_of("distill_targets", config(), rows(2000)).tokens["scoring"] > usual["distill_targets"].tokens["scoring"]


def test_augmented_rows_and_trials_are_counted_within_their_bounds() -> None:
    assert augmented_rows(config(), rows(1000)) == 20_000  # at most 20 copies of a row
    assert augmented_rows(config(targets={"augmented_tokens": 180_000}), rows(1000)) == 10_000  # of 18 tokens each
    searched = config(search={"k_max": 3, "trial_steps": 100, "trial_cells": 4, "trial_finalists": 2, "trial_final_steps": 300})
    assert trial_steps(searched.search) == (8, (2 + 3) * 100 + 600)
    wide, narrow = searched, config(search={**dataclasses.asdict(searched.search), "proxy_channels": 32})
    by_width = [work_of("search", settings, rows()) for settings in (wide, narrow)]
    assert by_width[1].steps == by_width[0].steps
    assert by_width[1].tokens["student"] == by_width[0].tokens["student"] / 4
    assert by_width[1].bytes < by_width[0].bytes
    assert trial_steps(config().search) == (0, 0.0)
    given = config(search={"genotype": "2 x 0>2 conv_3, 1>2 identity"})
    assert work_of("search", given, rows()).steps == 0
    assert len(EDGES) == 9


def test_clock_stops_a_training_and_leaves_out_the_steps_that_end_an_epoch() -> None:
    clock = StepClock(seconds=0.0)
    assert clock.busy()  # the first step warms up
    with pytest.raises(TimeIsUp):
        clock.busy()
    clock.ends = [0.0, 1.0, 51.0, 52.0]  # three batches an epoch; the third step ends one, and 50 s are a scoring's
    lengths = np.full(30, 10)
    assert clock.seconds_per_token(LengthBuckets(lengths, 10, 0), lengths) == pytest.approx(2.0 / 200)


def test_command_prints_the_table_and_run_says_its_line_of_new_rows(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(
        plan_module, "make_plan", lambda config, seconds=None, dataset=None: made.append((seconds, dataset)) or plan
    )
    done = CliRunner().invoke(cli, ["plan", "--config", str(SMOKE), "--seconds", "3"])
    assert done.exit_code == 0
    assert table_text(plan) in done.output
    refused = CliRunner().invoke(cli, ["plan", "--config", str(SMOKE), "--minutes", "0"])
    assert isinstance(refused.exception, UserError)
    rows = tmp_path / "prepare_data"
    monkeypatch.setattr("adabert_core.runner.run_all", lambda *given, on_rows, **named: on_rows and on_rows(rows))
    monkeypatch.setattr("adabert_core.cli.show_report", lambda *given: None)
    start = ["run", "--config", str(SMOKE), "--output", str(tmp_path)]
    assert f"plan: {plan}" in CliRunner().invoke(cli, start).output
    assert "plan:" not in CliRunner().invoke(cli, [*start, "--no-plan"]).output
    assert "plan:" not in CliRunner().invoke(cli, [*start, "--stage-cache", str(tmp_path / "cache")]).output
    assert made == [(3.0, None), (20.0, None), (None, rows)]


def test_the_time_of_the_headline_is_planned_where_it_is_not_asked_for() -> None:
    asked, other = ({"batches": [8], "lengths": [32], "seconds": 1.0}, {"batches": [1], "lengths": [128], "seconds": 1.0})
    assert (
        work_of("benchmark", config(benchmark=asked), rows()).timing
        == 2 * work_of("benchmark", config(benchmark=other), rows()).timing
    )
