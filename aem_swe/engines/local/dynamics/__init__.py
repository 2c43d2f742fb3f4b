"""Analysis of the entropy dynamics: what one step of every rule does to the entropy of one and the same policy."""
