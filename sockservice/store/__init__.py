"""Durable storage of lines: the engines, group commit, and reading back."""
