"""What follows metrics.jsonl: W&B, in a process of its own, and TensorBoard."""
