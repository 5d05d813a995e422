"""The store in a stream of NATS JetStream: replicated, synced on a majority of its nodes."""
