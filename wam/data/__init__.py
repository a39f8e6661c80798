"""Episodes in, batches out: the LeRobot v3.0 store and writer, video, statistics, windows, mixtures, sampler, loader.

Knows no network and no simulator.
"""
