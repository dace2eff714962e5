"""Super-resolution: so far how its results are measured."""
