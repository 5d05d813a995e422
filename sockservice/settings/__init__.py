"""The options of the service: what there is, how it is read and all that is said of it."""
