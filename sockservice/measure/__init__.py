"""Measurements: probes, load and histograms."""
