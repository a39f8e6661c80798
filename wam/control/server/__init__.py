"""A policy behind a websocket: who may ask, what a request means, which requests are answered together, and a live page.

`server` ties the parts together; `config` holds all that can be set.
"""
