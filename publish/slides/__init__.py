"""Decks for a lecture hall without internet."""
