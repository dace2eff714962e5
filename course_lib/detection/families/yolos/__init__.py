"""Detectors on a plain vision transformer: YOLOS, and DETR with a ViT for a body."""
