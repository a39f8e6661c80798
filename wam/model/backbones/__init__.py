"""Pretrained video transformers of diffusers (Wan, Cosmos-Predict, LTX-Video) as experts of a stream of the joint transformer:
loading them with their provenance, wrapping their blocks and ends, parity with the originals, and adapters beside them.
"""
