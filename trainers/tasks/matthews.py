"""Matthews correlation that is 0 for a classifier that knows one class only."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.classification import MulticlassMatthewsCorrCoef


class Matthews(MulticlassMatthewsCorrCoef):
    """torchmetrics' coefficient, but 0 where it is undefined: all predictions, or all labels, are of one class.

    torchmetrics 1.9 gives 0.98 there for two classes (63 of 64 labels in the class that is always predicted); scikit-learn gives 0.
    """

    def compute(self) -> Tensor:
        """Returns the coefficient, float32 []."""
        confusion: Tensor = self.confmat
        is_defined = all(int(confusion.sum(dim).count_nonzero()) > 1 for dim in (0, 1))
        return super().compute() if is_defined else confusion.new_zeros((), dtype=confusion.float().dtype)
