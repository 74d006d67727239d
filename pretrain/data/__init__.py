"""Labelled images: where they are, and in which order a training sees them."""
