"""Every sampler on theories whose answers are known, exactly or from another sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.flows import residual, trivializing
from flowqcd.lattice import group, integrators, loops
from flowqcd.mcmc import annealing, flowed, heatbath, hmc, link, link_flow, metropolis
from flowqcd.models import marginal, priors
from flowqcd.runs import theories
from flowqcd.runs.theories import Theory
from flowqcd.stages import exact_quarks
from flowqcd.stages.exact_sampling import LATTICE, Case, Measurements, chain, haar, weighted
from flowqcd.theory import observables, torus
from flowqcd.types import Action, Array, Flow, Kernel, Key, Params


def all_cases() -> list[Case]:
  """References stand before the cases that need them."""
  return [*_links(), *(case for nc, beta in ((1, 2.0), (2, 3.0), (3, 4.0)) for case in _torus(nc, beta)),
          *exact_quarks.cases(), *_four_dimensions()]  # fmt: skip


class Torus(NamedTuple):
  """Pure gauge theory on LATTICE: what is measured, and what it must be."""

  theory: Theory
  known: dict[str, float]
  measure: Callable[[Array], Measurements]


def on_torus(nc: int, beta: float) -> Torus:
  """The plaquette, the variance of its average, and <Q^2> of U(1); with weights ln Z as well."""
  volume = LATTICE[0] * LATTICE[1]
  log_z, plaquette = torus.exact(nc, beta, volume)
  known = {"plaquette": plaquette, "variance": torus.plaquette_variance(nc, beta, volume), "ln Z": log_z}
  if nc == 1:
    known["Q^2"] = torus.charge_squared(beta, volume)

  def measure(u: Array) -> Measurements:
    p = observables.mean_plaquette(u)
    found = {"plaquette": p, "variance": (p - plaquette) ** 2}
    if nc == 1:
      found["Q^2"] = (jnp.sum(jnp.angle(loops.plaquette_traces(u))) / (2 * jnp.pi)) ** 2
    return found

  return Torus(Theory(nc=nc, lattice=LATTICE, beta=beta, num_flavours=0), known, measure)


_STEPS = 3
"""Of trivializing flows. With one, ln w of U(1) at beta = 1 is off by 0.06 between samples, and Q^2 by a percent."""


def _torus(nc: int, beta: float) -> list[Case]:
  t, label = on_torus(nc, beta), f"SU({nc})" if nc > 1 else "U(1)"
  action, start = theories.gauge_action(t.theory), haar(nc, LATTICE)
  on = lambda name, kernel, **how: chain(f"{label}, {name}", kernel, start, t.measure, t.known, **how)
  # Steps so coarse that acceptance matters.
  cases = [
    on("HMC, leapfrog", hmc.make(action, 1.0, 4)),
    on("HMC, Omelyan 2", hmc.make(action, 1.0, 3, integrators.OMELYAN2)),
    on("heat bath", heatbath.make(beta, 0)),
    on("heat bath, overrelaxed", heatbath.make(beta, 2)),
    annealed(f"{label}, annealing, HMC", t, lambda b: hmc.make(_action_at(t, b), 1.0, 4)),
    annealed(f"{label}, annealing, heat bath", t, heatbath.make),
  ]
  if nc == 3:
    flow, params = _trivializing(nc, beta, _STEPS)
    cases += [
      on("HMC, Omelyan 4", hmc.make(action, 1.0, 2, integrators.OMELYAN4)),
      on("link flow", link_flow.make(beta, 1, 1)),
      chain(f"{label}, HMC in a flow's variables", hmc.make(flowed.action(action, flow, params), 1.0, 3), start,
            lambda z: t.measure(flow.forward(params, z).point), t.known, steps=80),
    ]  # fmt: skip
  cases += [of_flow(f"{label}, trivializing flow", t, *_trivializing(nc, beta, _STEPS))]
  weak = on_torus(nc, beta / 2)
  cases += [of_flow(f"{label}, residual flow", weak, *_residual(nc, beta / 2))]
  return [*cases, independence(f"{label}, independence Metropolis", weak, *_trivializing(nc, beta / 2, _STEPS))]


def _action_at(t: Torus, beta: Array) -> Action:
  """The theory's action at another coupling."""
  return theories.gauge_kind(t.theory).make(beta, ())


def annealed(name: str, t: Torus, kernel_at: Callable[[Array], Kernel]) -> Case:
  """Annealed importance sampling from Haar links."""
  run = annealing.make(lambda b: _action_at(t, b), np.linspace(0.0, t.theory.beta, 25), kernel_at)

  def draw(key: Key) -> Measurements:
    first, second = jax.random.split(key)
    end = run(second, haar(t.theory.nc, LATTICE)(first), jnp.zeros(()))
    return {"log_w": end.log_w, **t.measure(end.u)}

  return weighted(name, draw, t.known)


def of_flow(name: str, t: Torus, flow: Flow, params: Params) -> Case:
  """Samples of a flow from Haar links with their weights."""
  model = marginal.make(priors.haar(t.theory.nc, LATTICE, jnp.complex128), flow)

  def draw(key: Key) -> Measurements:
    u, log_q = model.sample(params, key)
    return {"log_w": -theories.gauge_value(t.theory, u) - log_q, **t.measure(u)}

  return weighted(name, draw, t.known)


def independence(name: str, t: Torus, flow: Flow, params: Params) -> Case:
  """Independence Metropolis with proposals of a flow."""
  model = marginal.make(priors.haar(t.theory.nc, LATTICE, jnp.complex128), flow)

  def propose(key: Key) -> metropolis.Proposal:
    u, log_q = model.sample(params, key)
    return metropolis.Proposal(u, -theories.gauge_value(t.theory, u) - log_q)

  return chain(name, metropolis.make(propose), haar(t.theory.nc, LATTICE), t.measure, t.known)


def _trivializing(nc: int, beta: float, steps: int) -> tuple[Flow, Params]:
  config = trivializing.Config(steps=steps, lines=False)
  flow = trivializing.make(config, trivializing.pure_gauge(beta, 2), nc, LATTICE)
  return flow, flow.init(jax.random.key(0))


def _residual(nc: int, beta: float) -> tuple[Flow, Params]:
  flow = residual.make(residual.Config(sweeps=1), beta, nc, LATTICE)
  return flow, _moved(flow, 0.2)


def _moved(flow: Flow, scale: float) -> Params:
  """Parameters away from where training starts, which may be the identity."""

  leaves, tree = jax.tree.flatten(flow.init(jax.random.key(0)))
  rng = np.random.default_rng(0)
  return tree.unflatten([x + scale * rng.normal(size=x.shape).astype(x.dtype) for x in leaves])


def _links() -> list[Case]:
  """One link of SU(3) in a fixed background B in SU(3), of density e^{(beta/3) Re tr U B}.

  Chains start from the link's flow: a link far from its mode would have a weight that no proposal comes near while the
  background stays as it is.
  """
  beta = 24.0
  log_z, energy = torus.one_plaquette(3, beta)
  background = group.haar(jax.random.key(3), (3, 3, 1), jnp.complex128)
  measure = lambda u: {"energy": jnp.mean(group.trace(group.mul(u, background)).real) / 3}
  frame = link.frame(background, beta / 3)

  def draw(key: Key) -> Measurements:
    x, log_w = link.forward(frame, link.draw(key, 1, jnp.complex128))
    return {"log_w": log_w[0], **measure(link.from_frame(frame, x))}

  def moves(key: Key, state: hmc.State):
    choose, move = jax.random.split(key)
    u, probability = link_flow.update(move, state.u, background, beta / 3, jax.random.bernoulli(choose))
    return heatbath.KernelStep(hmc.State(u), probability)

  kernel = Kernel(lambda key, u: hmc.State(u), moves)
  start = lambda key: link.from_frame(frame, link.forward(frame, link.draw(key, 1, jnp.complex128)).x)
  known = {"ln Z": log_z, "energy": energy}
  return [
    weighted("one SU(3) link, its flow", draw, known, chunk=1024),
    chain("one SU(3) link, fresh and reflected", kernel, start, measure, known, chunk=256),
  ]


def _four_dimensions() -> list[Case]:
  """SU(3) on 2^4 sites, where only samplers know the answer."""
  theory = Theory(nc=3, lattice=(2, 2, 2, 2), beta=5.0, num_flavours=0)
  measure = lambda u: {
    "plaquette": observables.mean_plaquette(u),
    "Polyakov loop^2": jnp.abs(observables.polyakov_loop(u)) ** 2,
  }
  start = haar(theory.nc, theory.lattice)
  on = lambda name, kernel, known: chain(f"SU(3) in 4D, {name}", kernel, start, measure, known, steps=100)
  reference = on("heat bath", heatbath.make(theory.beta, 1), {})
  return [
    reference,
    on("HMC", hmc.make(theories.gauge_action(theory), 1.0, 8), reference.name),
    on("link flow", link_flow.make(theory.beta, 1, 1), reference.name),
  ]
