"""Evaluation on SWE-bench: play the instances, grade them with the official harness, judge and compare the results."""
