"""Driving robots: what a policy is, how a world-action model becomes one, and how its chunks are executed.

Importable without training code; the interface a policy has to meet is in `policy`.
"""
