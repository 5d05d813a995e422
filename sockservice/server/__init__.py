"""The protocols to subclass, and what a connection is made of."""
