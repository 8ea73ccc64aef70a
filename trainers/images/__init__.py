"""Pictures: read, checked, kept, changed, and the networks that look at them."""
