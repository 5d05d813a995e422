"""Datagrams in batches, and the addresses they were sent to."""
