"""What the service is told by its options, what it permits, and what it counts."""
