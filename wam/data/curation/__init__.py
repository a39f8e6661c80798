"""Raw video into clips: `curate` turns folders, lists and tar shards into a LeRobot v3.0 folder without actions, beside
it a manifest of the clips and a record of what was left out.

The stages are plain functions over one file (`clips.py`); who calls them, here or on a cluster, does not change what
they give.
"""
