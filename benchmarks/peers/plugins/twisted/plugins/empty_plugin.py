"""Lets twistd find a plugin that does nothing."""

from twisted.application.service import ServiceMaker

empty = ServiceMaker("empty", "benchmarks.peers.empty", "Does nothing.", "empty")
