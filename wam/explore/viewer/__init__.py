"""`wam explore`: a local page on which a newcomer drags an arrow and watches what a model imagines of it.

`questions` reads what a page asks, `studio` answers it, `server` carries both, `page.html` is all that a browser loads.
"""
