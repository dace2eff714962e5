"""Object detection: boxes, anchors, matching, losses, suppression, measures, and families of networks."""
