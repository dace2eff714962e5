"""From DETR to two-stage Deformable DETR: boxes predicted as a set, without anchors (chapters 19 and 20)."""
