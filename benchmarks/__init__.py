"""Benchmarks: ratios measured side by side in one run, each with the check that the results are equal.

`make bench` runs all of them; `python -m benchmarks NAME ...` some.
"""
