"""Recordings: found, checked, turned into what a network sees."""
