"""UDP: datagrams in batches, replies from the address that was asked."""
