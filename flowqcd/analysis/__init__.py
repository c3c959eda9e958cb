"""Weights, statistics and figures."""
