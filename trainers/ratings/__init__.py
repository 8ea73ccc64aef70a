"""Who liked what: read from tables, and what a network recommends from it."""
