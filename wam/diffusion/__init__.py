"""Noise: clocks (noise levels and how streams' levels are tied), flow matching, samplers and guidance."""
