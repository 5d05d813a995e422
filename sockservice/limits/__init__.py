"""Limits of the process, and its counters."""
