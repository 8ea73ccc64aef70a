"""What the launcher knows of Slurm: its commands, its jobs, and what runs inside them."""
