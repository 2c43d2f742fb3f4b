"""Where the time of a run went, from its spans.jsonl alone: read (spans), explain (path, step), sum up (profile), show.

Every number that is shown here can be recomputed from that one file; nothing in it is an estimate of a stage that was
not timed. What no span explains is named, as the residual.
"""
