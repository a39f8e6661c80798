"""Tokenizers: what turns pixels, sentences and actions into the streams' tokens, and back.

`video` and `text` hold networks behind two small interfaces; `action` holds two codes without networks, bins and FAST.
"""
