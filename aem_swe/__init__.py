"""aem-swe: train software-engineering agents with DeepSWE's recipe, with or without Adaptive Entropy Modulation."""

__version__ = "0.1.0"
