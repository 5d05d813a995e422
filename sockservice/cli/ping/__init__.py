"""`sockservice ping`: numbered probes, and what became of them."""
