"""Probability models made of priors and flows."""
