"""The stages of the chain, one small file each."""
