"""Encoders: texts and pictures in, vectors out."""
