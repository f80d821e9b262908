"""Figures: one file each, a function of plain tables that returns a matplotlib Figure; style.py is the
look.
"""
