"""Benchmarks: `make bench` (docs/performance.md). They run for minutes, on loopback, and are no tests."""
