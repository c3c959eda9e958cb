"""Flow-based sampling for lattice QCD in JAX and Haiku."""
