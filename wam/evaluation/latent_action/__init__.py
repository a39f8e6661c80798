"""Is a latent action an action? Health of the codes, probes against true motion, retrieval, transfer, and camera shake."""
