"""`sockservice bench`: load for a server, and its latencies."""
