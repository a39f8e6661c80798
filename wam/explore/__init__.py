"""Meeting a trained model: `wam.load` for notebooks, whose answers display themselves, and the page of `wam explore`.

Nothing here measures or trains; it asks models, lays what really came beside, and draws with `wam.visualization`.
"""
