"""Figures that several parts report, from plain arrays: order, correlation, intervals."""
