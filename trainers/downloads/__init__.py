"""Brings archives, models and data from elsewhere."""
