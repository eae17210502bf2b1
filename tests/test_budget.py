"""The latency that a target allows, measured on real exports of a tiny teacher's students."""

from pathlib import Path

import pytest

from adabert_core.budget import Budget
from adabert_core.config import RunConfig, TargetConfig
from adabert_core.config_file import parse_run_config
from adabert_core.errors import UserError
from adabert_core.search_space import Genotype
from adabert_core.storage import Checkpoints, FolderStore
from adabert_core.teacher import new_teacher

DEEP = Genotype.parse("8 x 0>2 conv_7, 1>2 conv_7, 0>3 conv_7, 1>3 conv_7, 0>4 conv_7, 1>4 conv_7")
SHALLOW = Genotype.parse("1 x 0>2 identity, 1>2 identity")


def test_target_at_the_top_reaches_the_search_and_needs_trials() -> None:
    found = parse_run_config({"target": {"latency_ms": 2, "min_retention": 0.97}, "search": {"trial_steps": 5}})
    assert found.search.target == TargetConfig(latency_ms=2.0, min_retention=0.97)
    nearer = parse_run_config({"target": {"latency_ms": 2}, "search": {"trial_steps": 5, "target": {"speedup": 30}}})
    assert nearer.search.target == TargetConfig(speedup=30.0)
    assert RunConfig().search.target == TargetConfig()
    with pytest.raises(UserError, match=r"search\.trial_steps is 0"):
        parse_run_config({"target": {"speedup": 40}})
    with pytest.raises(UserError, match=r"did you mean search\.target\.latency_ms"):
        parse_run_config({"target": {"latency": 2}})


def test_structures_are_timed_once_and_the_slow_ones_do_not_fit(bert_folder: Path, tmp_path: Path) -> None:
    teacher = new_teacher(str(bert_folder), ["bad", "good"], False, 64)
    checkpoints = Checkpoints(FolderStore(tmp_path))
    free = Budget(TargetConfig(), teacher, 32, checkpoints, "latencies")
    assert free.limit is None
    assert free.fits(DEEP)
    assert free.measured == {}
    fast, slow = free.milliseconds(SHALLOW), free.milliseconds(DEEP)
    assert fast < slow
    bound = Budget(TargetConfig(latency_ms=(fast + slow) / 2), teacher, 32, checkpoints, "latencies")
    assert bound.measured == {str(SHALLOW): fast, str(DEEP): slow}  # a resumed search has the same figures
    assert (bound.fits(SHALLOW), bound.fits(DEEP)) == (True, False)


def test_speedup_is_a_bound_by_the_time_of_bert_base(bert_folder: Path) -> None:
    class Known(Checkpoints):
        def load(self, key: str) -> dict[str, float]:
            return {"bert-base": 120.0}

    teacher = new_teacher(str(bert_folder), ["bad", "good"], False, 64)
    assert Budget(TargetConfig(speedup=40.0), teacher, 32, Known(None), "latencies").limit == 3.0
    assert Budget(TargetConfig(speedup=40.0, latency_ms=2.0), teacher, 32, Known(None), "latencies").limit == 2.0
