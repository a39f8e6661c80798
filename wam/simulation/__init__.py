"""Environments to act in: Meta-World and PushT behind one small interface, a ray-cast renderer, collection of episodes.

Nothing is imported here: `wam.simulation.environment.make_environment` is the door, and simulators load on first use.
"""
