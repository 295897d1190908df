"""Measuring candidates: cost, proxy training, quality."""
