"""The contract that the launcher and the training side share: pure Python, no torch."""
