"""Invertible gauge-equivariant maps with log-determinants."""
