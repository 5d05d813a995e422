"""Relay what a store holds to the next server, in a session."""
