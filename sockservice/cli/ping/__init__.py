"""`sockservice ping`: numbered probes, and the fate of each."""
