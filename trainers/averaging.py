"""The exponential moving average of the trained weights (EMA): what evaluations see, and what the result is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainers.checkpoints.host_copies import HostCopies
from trainers.engine import Engine


class NoAverage:
    """Weights are what the last step made them."""

    is_on = False

    def update(self) -> None:
        """Takes the weights of a step into the average. Every rank must call this after each step."""

    def take(self) -> None:
        """Makes the weights that the model has the average. Every rank must call this."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights in this context, and its own again afterwards, to the bit. Every rank must enter it."""
        yield

    def whole_weights(self) -> dict[str, Tensor]:
        """Returns the averaged weights and all others whole on rank 0, in host memory, elsewhere {}. Every rank must call this."""
        raise NotImplementedError


NO_AVERAGE = NoAverage()


class WeightAverage(NoAverage):
    """torch's AveragedModel over what this rank holds of the trained weights: under FSDP2 and ZeRO a part of each, in fp32.

    After the first step the average is the weights; from then on decay x average + (1 - decay) x weights. An element depends on no other, so
    that any division over ranks gives the same numbers.
    """

    is_on = True

    def __init__(self, engine: Engine, model: nn.Module, optimizer: Any, decay: float) -> None:
        self._engine, self._model = engine, model
        self._own = _Box(engine.own_weights(model, optimizer))
        self._averaged = AveragedModel(self._own, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def update(self) -> None:
        self._averaged.update_parameters(self._own)

    def take(self) -> None:
        for average, weights in self._pairs():
            average.copy_(weights)
        self._averaged.n_averaged.fill_(1)

    @contextmanager
    def applied(self) -> Iterator[None]:
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def whole_weights(self) -> dict[str, Tensor]:
        with self.applied():
            weights: dict[str, Tensor] = HostCopies().take(self._engine.whole_weights(self._model))
        return weights

    def _exchange(self) -> None:
        for average, weights in self._pairs():
            kept = weights.clone()  # one tensor at a time is held twice
            weights.copy_(average)
            average.copy_(kept)
        self._engine.spread_weights(self._model)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self._averaged.module.parameters(), self._own.parameters(), strict=True)


class _Box(nn.Module):
    """What AveragedModel takes: parameters in the memory of the given tensors."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self.tensors = nn.ParameterList([nn.Parameter(tensor.detach(), requires_grad=False) for tensor in tensors])


def build_average(engine: Engine, model: nn.Module, optimizer: Any, decay: float | None) -> NoAverage:
    """Returns the average of a prepared model's trained weights, which begins with its first step."""
    return NO_AVERAGE if decay is None else WeightAverage(engine, model, optimizer, decay)
