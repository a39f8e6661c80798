"""Cameras and voxels: where a pixel lies in the world, and what of the world is filled."""
