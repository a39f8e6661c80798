"""Measuring: closed-loop success with intervals, video metrics, world-model gates, and the files that keep them.

Everything here takes plain arrays or any object with the documented method, so no module imports a network.
"""
