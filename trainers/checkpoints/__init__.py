"""What a checkpoint consists of: its manifest, the optimizer by name, random states, and how they come back."""
