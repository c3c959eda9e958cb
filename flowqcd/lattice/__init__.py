"""The lattice: groups, sites, loops, spin and integrators."""
