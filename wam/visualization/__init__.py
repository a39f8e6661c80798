"""Pictures for people: film strips, animations, plots and the one-page report of a run.

Everything is drawn without a display; nothing here measures, it draws what `wam.evaluation` has measured.
"""
