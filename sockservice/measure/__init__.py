"""Probes, load and histograms."""
