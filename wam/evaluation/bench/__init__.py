"""Benchmarks behind `wam bench NAME`: what dropping, caching, rolling out, joining streams and reading data cost.

Each compares two ways of doing one thing, timed in turns in one process, and gives the median of their ratios.
"""
