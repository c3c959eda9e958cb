"""Theories with quarks, sampled by HMC, by reweighting, and with draws of pseudofermions."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from flowqcd.mcmc import hmc
from flowqcd.models import joint, priors
from flowqcd.runs import conditionals, theories
from flowqcd.runs.conditionals import Conditional
from flowqcd.runs.theories import Theory
from flowqcd.stages.exact_sampling import LATTICE, Case, Draw, Measurements, chain, haar, weighted
from flowqcd.theory import determinant, gauge, observables, pseudofermion
from flowqcd.types import Array, Key


def cases() -> list[Case]:
  """Two flavours in two dimensions: exact pure gauge draws with the exact determinant, against everything else."""
  found = []
  for nc, beta, kappa in ((1, 1.0, 0.2), (2, 2.0, 0.16)):
    theory = Theory(nc=nc, lattice=LATTICE, beta=beta, kappa=kappa, boundary=(-1.0, 1.0))
    label = "Schwinger model" if nc == 1 else f"SU({nc}) with quarks"
    reference = f"{label}, reweighted heat bath"
    measure = lambda u: {"plaquette": observables.mean_plaquette(u), "Polyakov loop": observables.polyakov_loop(u).real}
    found.append(weighted(reference, _reweighted_quarks(theory, measure), {}))
    quarks = {
      "plain": (pseudofermion.plain(kappa, theory.boundary),),
      "even/odd": (pseudofermion.even_odd(kappa, theory.boundary),),
      "Hasenbusch": pseudofermion.hasenbusch(kappa, 0.4, theory.boundary),
    }
    for name, parts in quarks.items() if nc == 1 else (("even/odd", quarks["even/odd"]),):
      kernel = hmc.make(gauge.total(theories.gauge_action(theory), *parts), 1.0, 4)
      found.append(chain(f"{label}, HMC, {name}", kernel, haar(nc, LATTICE), measure, reference, steps=80))
    found.append(weighted(f"{label}, joint draws", joint_draws(theory, measure), reference))
  return found


def _reweighted_quarks(theory: Theory, measure: Callable[[Array], Measurements]) -> Draw:
  prior = priors.heat_bath(theory.beta, theory.nc, theory.lattice, jnp.complex128, 30)

  def draw(key: Key) -> Measurements:
    u = prior.sample(key)
    return {"log_w": 2 * determinant.log_det(u, theory.kappa, theory.boundary), **measure(u)}

  return draw


def joint_draws(theory: Theory, measure: Callable[[Array], Measurements]) -> Draw:
  """The same with the determinant from two pseudofermion draws of the conditional model."""
  prior = priors.heat_bath(theory.beta, theory.nc, theory.lattice, jnp.complex128, 30)
  model = conditionals.model(Conditional(kind="hopping"), theory, "double")
  params = model.init(jax.random.key(0))
  estimate = joint.log_determinant(model, 2, 2)

  def draw(key: Key) -> Measurements:
    first, second = jax.random.split(key)
    u = prior.sample(first)
    return {"log_w": estimate(params, u, second).log_mean, **measure(u)}

  return draw
