"""What can be known to go wrong: small checks in tables, each with its way out."""
