"""How large models, data, memory and checkpoints are, found without torch where that is possible."""
