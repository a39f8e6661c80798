"""The joint transformer: streams, the table of who sees and modulates whom, experts, and the world-action model."""
