"""Runnable benchmarks: everything on loopback, nothing outlives its run. What is measured: docs/benchmarks.md."""
