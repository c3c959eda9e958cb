"""Markov chains: HMC, heat bath and Metropolis."""
