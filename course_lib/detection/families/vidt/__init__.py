"""ViDT: Swin with tokens that detect, a decoder without an encoder, and distillation (chapters 23 and 24)."""
