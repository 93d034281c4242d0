"""Evaluations beside each other: methods, sweeps, fields, and the tables of them."""
