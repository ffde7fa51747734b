"""Benchmarks: each compares with a limit or a peer in one run, prints the machine, and ends in one JSON line."""
