"""Lattice actions, Dirac operators, determinants and observables as pure functions."""
