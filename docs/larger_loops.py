"""What larger loops leave of Luescher's equation: `python docs/larger_loops.py [beta ...]`, minutes for each beta.

For each set of loops Var r/Var S over heat-bath samples of SU(3) on 4^4 (`flowqcd.training.continuity`): what a stage of a
fitted flow loses goes with it. Coefficients are fitted to one half of the samples, and Var r is the mean of both halves: k
coefficients make it too small by k/n on the half that they were fitted to, and too large by k/n on the other.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.flows import loop_action
from flowqcd.mcmc import heatbath, hmc
from flowqcd.models import priors
from flowqcd.training import continuity
from flowqcd.types import Array, Key

LATTICE = (4, 4, 4, 4)
NUM_SAMPLES, SWEEPS = 640, 40
# The sum of rectangles and chairs is in the next order already.
SIX = ("aabAAB", "abcABC")
EIGHT = tuple(
  "aabbAABB aaabAAAB aabABBAb ababABAB aabAbABB abAcaBAC abcdABCD aabcAABC aabcAACB abacABAC abcAdCBD aabAAcBC aabABcAC "
  "aabAcBAC abaBAcAC abABcdCD abAcdBDC abcAdBCD aabAcABC aabAcACB abAcBdCD abAcdBCD".split()
)
OWN = loop_action.NUM_LOCAL
SETS = {
  "plaquette": range(1),
  "next order": range(OWN),
  "and rectangles": range(OWN + 1),
  "and all of six links": range(OWN + len(SIX)),
  "and all of eight": range(OWN + len(SIX) + len(EIGHT)),
}


def sample(beta: float, key: Key) -> Array:
  """Links after SWEEPS of heat bath and over-relaxation each."""
  kernel = heatbath.make(beta, 1)
  move = lambda u, key: (kernel.step(key, hmc.State(u)).state.u, None)
  first, second = jax.random.split(key)
  return jax.lax.scan(move, priors.haar(3, LATTICE, jnp.complex64).sample(first), jax.random.split(second, SWEEPS))[0]


def left_over(action: np.ndarray, loops: np.ndarray) -> float:
  """Var r/Var S for coefficients of either half of the samples."""
  half, found = len(action) // 2, []
  for fit, judge in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
    mean, spread = loops[fit].mean(axis=0), loops[fit].std(axis=0)
    # tr P^2 is not independent of the others in SU(3).
    f = np.linalg.lstsq((loops[fit] - mean) / spread, action[fit] - action[fit].mean(), rcond=1e-6)[0]
    found += [(action[part] - (loops[part] - mean) / spread @ f).var() for part in (fit, judge)]
  return float(np.mean(found) / action.var())


def main() -> None:
  """A row for each beta."""
  draw = jax.jit(lambda beta, keys: jax.lax.map(lambda key: sample(beta, key), keys, batch_size=8))
  terms = jax.jit(lambda u, beta: jax.lax.map(lambda u: continuity.terms(u, beta, SIX + EIGHT), u))
  print("beta | " + " | ".join(SETS))
  for beta in [float(x) for x in sys.argv[1:]] or [1.0, 2.0, 3.0, 4.0, 5.7]:
    keys = jax.random.split(jax.random.key(int(10 * beta)), NUM_SAMPLES)
    found = terms(draw(jnp.float32(beta), keys), jnp.float32(beta))
    action, loops = (np.asarray(x, float) for x in found)
    print(f"{beta} | " + " | ".join(f"{left_over(action, loops[:, list(k)]):.3g}" for k in SETS.values()), flush=True)


if __name__ == "__main__":
  main()
