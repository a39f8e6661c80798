"""Benchmarks behind `wam bench NAME`: what dropping, caching, rolling out, joining streams, reading data and wrapping
pretrained networks cost.

Each compares two ways of doing one thing, timed in turns in one process, and gives the median of their ratios; parity compares
what comes out.
"""
