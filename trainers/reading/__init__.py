"""Rows of data sets: read from files, accounted for, kept in columns."""
