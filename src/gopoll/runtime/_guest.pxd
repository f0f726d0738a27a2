"""Turns of a guest, called from Python. See _guest.pyx."""
