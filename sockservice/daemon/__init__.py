"""From the options of `twistd sockservice` to running services."""
