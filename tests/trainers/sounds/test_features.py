"""Frames of a recording, and what is hidden of them."""

from __future__ import annotations

import math

import pytest
import torch

from trainers.sounds.features import MelBands, hide_stripes
from trainers.sounds.recordings import resampled

BANDS = MelBands(sample_rate=8000, window=200, hop=80, num_mels=20)


def tone(hertz: float, rate: int, num_samples: int) -> torch.Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(num_samples, dtype=torch.float64) / rate)


def test_frames_are_those_that_fit_whole():
    assert [BANDS.num_frames(size) for size in (0, 199, 200, 279, 280, 1000)] == [0, 0, 1, 1, 2, 11]
    assert BANDS(torch.ones(1000, dtype=torch.int16)).shape == (11, 20)


def test_each_band_has_mean_0_and_variance_1():
    source = torch.Generator().manual_seed(0)
    frames = BANDS(torch.randint(-3000, 3000, (8000,), generator=source).to(torch.int16))
    assert frames.mean(dim=0).abs().max() < 1e-5
    assert torch.allclose(frames.square().mean(dim=0), torch.ones(20), atol=0.01)


def test_an_evaluation_in_bf16_hears_the_same():
    samples = (tone(700, 8000, 2000) * 9000).to(torch.int16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames = BANDS(samples)
    assert frames.dtype == torch.float32
    assert torch.equal(frames, BANDS(samples))


def test_a_tone_is_loudest_in_the_band_around_its_frequency():
    silence, sound = torch.zeros(4000, dtype=torch.int16), (tone(1000, 8000, 4000) * 9000).to(torch.int16)
    frames = BANDS(torch.cat([silence, sound]))
    mel = [2595 * math.log10(1 + f / 700) for f in (1000, 4000)]
    band = round(mel[0] / mel[1] * 21 - 1)
    assert BANDS._filters[round(1000 / (4000 / 128))].argmax() == band
    assert frames[60:, band].mean() == frames[60:].mean(dim=0).max() > 0.9


def test_hidden_stripes_are_decided_by_the_seed_and_never_wider_than_allowed():
    frames = torch.ones(40, 20)
    assert torch.equal(hide_stripes(frames, 1, 0.25, seed=3), hide_stripes(frames, 1, 0.25, seed=3))
    hidden = [hide_stripes(frames, 1, 0.25, seed=seed) for seed in range(50)]
    widths = {(int((h.sum(dim=1) == 0).sum()), int((h.sum(dim=0) == 0).sum())) for h in hidden}
    assert max(time for time, _ in widths) == 10
    assert max(bands for _, bands in widths) == 5
    assert len(widths) > 10
    assert torch.equal(frames, torch.ones(40, 20))


@pytest.mark.parametrize(("rate", "wanted"), [(16000, 8000), (8000, 16000), (44100, 8000)])
def test_a_tone_at_another_rate_is_the_same_tone(rate: int, wanted: int):
    assert torch.allclose(resampled(tone(440, rate, rate), rate, wanted), tone(440, wanted, wanted), atol=1e-9)


def test_what_the_lower_rate_cannot_carry_is_cut_off_not_folded():
    assert resampled(tone(3000, 8000, 8000), 8000, 4000).abs().max() < 1e-9
