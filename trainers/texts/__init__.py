"""Texts: read, tokenised, kept on disk, collated into batches, and how answers and names in them are judged."""
