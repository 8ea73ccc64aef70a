from __future__ import annotations

import pytest
import torch

from launch.config.errors import ConfigError
from trainers.hardware import prepare_arithmetic, refuse_precision


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: request.param)


@pytest.mark.parametrize(
    ("gpu", "precision", "words"), [((7, 0), "tf32", "an A100 or newer"), ((8, 0), "fp8", "an L4, H100 or newer")], indirect=["gpu"]
)
def test_a_precision_the_gpu_has_not_is_refused_with_what_has_it(gpu: None, precision: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{precision} needs {words}"):
        refuse_precision(precision, "cuda")  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["tf32", "fp16", "fp8"])
def test_a_cpu_has_fp32_and_bf16_only(precision: str) -> None:
    with pytest.raises(ConfigError, match=f"{precision} needs"):
        refuse_precision(precision, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(("gpu", "precision"), [((7, 5), "bf16"), ((9, 0), "fp8")], indirect=["gpu"])
def test_emulation_and_the_unproved_are_warned_of(gpu: None, precision: str) -> None:
    assert [note.startswith("warning: ") for note in refuse_precision(precision, "cuda")] == [True]  # type: ignore[arg-type]


def test_fp32_products_are_not_rounded_unless_asked() -> None:
    try:
        prepare_arithmetic("tf32")
        assert torch.get_float32_matmul_precision() == "high"
        prepare_arithmetic("fp32")
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    finally:
        prepare_arithmetic("fp32")
