"""Measuring as a user asks for it: a preset, any network, and the candidates of a run on another device."""
