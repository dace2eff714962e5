"""Super-resolution: the networks, and how their results are measured."""
