"""Durable lines: the engines, group commit, and reading back."""
