"""Benchmarks with committed results: ``make bench`` runs them all. Upstreams are simulated."""
