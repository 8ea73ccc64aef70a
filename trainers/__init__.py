"""The training side: one script, one loop, any number of processes."""
