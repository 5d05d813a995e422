"""Measures the server against its peers: `python -m benchmarks`."""
