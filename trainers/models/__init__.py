"""Networks: loaded, given heads and adapters, cut down, saved."""
