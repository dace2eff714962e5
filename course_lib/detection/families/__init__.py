"""Families of detectors: each member adds one idea to the one before it."""
