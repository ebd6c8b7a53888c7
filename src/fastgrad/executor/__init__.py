"""Graphs that run: interpreted (`interpreter`) or as one native call over planned memory (`cpu`)."""
