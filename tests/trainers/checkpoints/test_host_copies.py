from __future__ import annotations

import torch

from trainers.checkpoints.host_copies import HostCopies


def state(value: float, size: int = 4) -> dict[str, object]:
    return {"weights": {"w": torch.full((size, 2), value)}, "groups": [{"lr": 0.1, "params": (0, 1)}], "step": torch.tensor(value)}


def test_copy_is_equal_and_independent() -> None:
    original = state(1.0)
    copy = HostCopies().take(original)
    original["weights"]["w"].zero_()  # type: ignore[index]
    assert torch.equal(copy["weights"]["w"], torch.ones(4, 2))
    assert (copy["groups"], copy["step"].item()) == ([{"lr": 0.1, "params": (0, 1)}], 1.0)


def test_next_copy_goes_into_the_same_memory() -> None:
    copies = HostCopies()
    first = copies.take(state(1.0))
    place = first["weights"]["w"].data_ptr()
    second = copies.take(state(2.0))
    assert second["weights"]["w"].data_ptr() == place
    assert torch.equal(second["weights"]["w"], torch.full((4, 2), 2.0))


def test_state_of_another_shape_gets_another_buffer() -> None:
    copies = HostCopies()
    copies.take({"few": torch.zeros(1), **state(1.0)})
    copy = copies.take(state(3.0, size=5))
    assert torch.equal(copy["weights"]["w"], torch.full((5, 2), 3.0))
    assert copy["step"].item() == 3.0


def test_tied_weights_stay_tied_and_slices_of_one_memory_do_not_become_it() -> None:
    whole = torch.arange(6.0)
    copy = HostCopies().take({"a": whole, "b": whole, "half": whole[:3], "empty": torch.zeros(0), "none": torch.zeros(0)})
    assert copy["a"].data_ptr() == copy["b"].data_ptr()
    assert copy["half"].tolist() == [0.0, 1.0, 2.0]
    assert copy["half"].data_ptr() != copy["a"].data_ptr()


def test_slices_that_lie_differently_are_not_taken_for_one() -> None:
    square = torch.arange(4.0).reshape(2, 2)
    copy = HostCopies().take({"rows": square, "columns": square.T})
    assert copy["columns"].tolist() == [[0.0, 2.0], [1.0, 3.0]]
