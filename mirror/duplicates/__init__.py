"""Finds copies of one photograph: perceptual hashes that are near, and groups of contents."""
