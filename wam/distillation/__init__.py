"""From a trained world-action model to a compact action expert: what the teacher is asked, and the losses that pass it on."""
