"""wam: world-action models, one transformer over named streams of video, actions and language."""

__version__ = "0.1.0"
