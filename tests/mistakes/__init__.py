"""Deliberate mistakes, by layers, which `make mutants` makes one after another.

Each is one that a person could make: a sign, a factor, a point at which something is read.
"""

from mistakes import files_to_stages, flows_to_training, lattice_to_chains

MUTANTS = [*lattice_to_chains.MUTANTS, *flows_to_training.MUTANTS, *files_to_stages.MUTANTS]
