"""Faces; thin, they translate only."""
