"""Flow-based sampling for lattice QCD in JAX and Haiku.

Modules are imported when they are first asked for: `flowqcd.theory.gauge.wilson` needs `import flowqcd` and no more.
"""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd import (
    analysis,
    command_line,
    commands,
    distributed,
    domains,
    experiment,
    flows,
    hosts,
    io,
    lattice,
    mcmc,
    models,
    presets,
    runs,
    stages,
    theory,
    tools,
    training,
    types,
  )

__version__ = "0.1.0"
__all__ = [
  "__version__",
  "analysis",
  "command_line",
  "commands",
  "distributed",
  "domains",
  "experiment",
  "flows",
  "hosts",
  "io",
  "lattice",
  "mcmc",
  "models",
  "presets",
  "runs",
  "stages",
  "theory",
  "tools",
  "training",
  "types",
]
__getattr__, __dir__ = submodules(__name__, __all__[1:])
