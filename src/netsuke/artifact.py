"""Artifact: graph, weights and manifest in one inert file."""
