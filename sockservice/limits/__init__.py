"""What the process permits, and counts."""
