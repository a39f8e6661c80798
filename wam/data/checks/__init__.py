"""Static checks of a dataset: pure functions on columns and small grey frames that return `Finding`s.

`static.py` runs them all over a store. No network and no simulator; the replay is in `wam.evaluation.doctor`.
"""
