"""What a stage computes with: the hardware's bf16 where there is one, fp32 and a word of warning where there is none."""

import pytest
import torch
from torch.profiler import profile

from adabert_core import runtime


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    runtime._say_slow.cache_clear()


@pytest.mark.parametrize(("hardware", "precision"), [(True, "bf16"), (False, "no")])
def test_auto_takes_bf16_only_where_the_cpu_has_it(hardware: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_bf16", lambda device: hardware)
    assert runtime.make_accelerator("cpu", "auto").mixed_precision == precision


def test_slow_training_is_announced_once_and_not_where_fp32_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime, "has_bf16", lambda device: False)
    caplog.set_level("INFO", logger="adabert_core")
    runtime.make_accelerator("cpu", "fp32")
    assert "no bf16" not in caplog.text
    for _ in range(2):
        runtime.make_accelerator("cpu", "auto")
    assert caplog.text.count("no bf16") == 1


def test_frozen_model_is_cast_once_for_all_its_batches() -> None:
    accelerator, layer, x = runtime.make_accelerator("cpu", "bf16"), torch.nn.Linear(8, 8), torch.randn(2, 8)

    def casts(batches: int) -> int:
        with profile() as record, runtime.frozen(accelerator):
            for _ in range(batches):
                with accelerator.autocast():
                    answer = layer(x)
                beside = x @ x.T
        assert answer.dtype == torch.bfloat16
        assert beside.dtype == torch.float32
        assert not answer.requires_grad
        return sum(event.count for event in record.key_averages() if event.key == "aten::_to_copy")

    assert casts(5) - casts(1) == 4  # only the batches
