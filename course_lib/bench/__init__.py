"""Clocks: how fast the library is on this machine, always beside something everybody knows."""
