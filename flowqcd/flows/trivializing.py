"""The trivializing gradient flow: dU/dt = -(d^a S~_t) T^a U carries the Haar measure at t = 0 towards e^{-S} at t = 1.

Luescher, arXiv:0907.5491: L0 S~_t + t sum d^a S d^a S~_t = S + const makes it exact. S~_t = sum_k c_k(t) W_k over the loops
of `loop_action`, and of `wilson_loops` where there shall be more. To next-to-leading order c_k(t) is a first-order
polynomial in t with known coefficients, and more generally a polynomial whose coefficients are learned, starting from
those. The log-determinant is the integral of L0 S~_t, which is exact in the loops; what remains is the step error of
the integrator, the same for U and for log det.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from flowqcd.flows import loop_action, wilson_loops
from flowqcd.lattice import integrators, precision, sites
from flowqcd.theory import dirac, gauge
from flowqcd.types import Array, Boundary, Flow, FlowResult, Key, Params, require_finite


def _field(default: Any, doc: str) -> Any:
  return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
  """A trivializing flow.

  order: 1 is the Wilson flow alone, 2 adds the seven loops of the next order. steps: Runge-Kutta steps. degree: of the
  polynomials c_k(t), at least order - 1. lines: winding lines in the basis, which carry the leading finite-volume effect
  of the quark determinant. loops: shapes of `wilson_loops` besides, whose coefficients start from zero.
  """

  order: int = _field(2, "1: Wilson flow; 2: next-to-leading loops too.")
  steps: int = _field(2, "Runge-Kutta steps of the flow, five evaluations each.")
  degree: int = _field(1, "Degree of the polynomials c_k(t).")
  lines: bool = _field(True, "Winding lines among the loops.")
  loops: tuple[str, ...] = _field((), "Larger loops besides, as aabAAB,abcABC: see flowqcd.flows.wilson_loops.")

  def __post_init__(self) -> None:
    """Raise ValueError for impossible fields."""
    if self.order not in (1, 2):
      raise ValueError(f"order must be 1 or 2, not {self.order}")
    if not isinstance(self.loops, tuple):
      raise ValueError(f"loops must be a tuple of words, not {self.loops!r}")
    if self.steps < 1:
      raise ValueError(f"steps must be at least 1, not {self.steps}")
    if self.degree < self.order - 1:
      raise ValueError(f"degree must be at least order - 1 = {self.order - 1}, not {self.degree}")


@dataclasses.dataclass(frozen=True)
class Target:
  """The action -(beta/Nc) sum Re tr P + sum_mu line_mu sum Re tr line that the analytic coefficients aim at.

  lines: one coupling per direction, zero for pure gauge theory. All may be traced.
  """

  beta: float | Array
  lines: tuple[float | Array, ...]

  def __post_init__(self) -> None:
    """Raise ValueError for couplings that are not finite."""
    require_finite(beta=self.beta)
    for line in self.lines:
      require_finite(line=line)


def pure_gauge(beta: float | Array, nd: int) -> Target:
  """The Wilson action."""
  return Target(beta, (0.0,) * nd)


def two_flavours(
  beta: float | Array,
  kappa: float | Array,
  nc: int,
  lattice: sites.Extents,
  boundary: Boundary | None,
  twisted_mass: float = 0.0,
) -> Target:
  """The Wilson action and the leading hopping terms of -2 ln |det D|, Ns = 2^(Nd/2) spin components.

  boundary None: antiperiodic in time. Raises ValueError for another number of phases than directions.
  Plaquettes: beta + 8 Ns Nc kappa^4 (96 kappa^4 for SU(3) in 4D). Lines of length L along mu with boundary phase s:
  2^(L+1) Ns kappa^L s, from tr (1 - gamma)^L = 2^(L-1) Ns, two orientations and two flavours (128 kappa^4 at L = 4).
  With a twisted mass mu every hop comes with T = (1 + i mu gamma5)^{-1}. By the traces of T (1 -+ gamma) .., lines have
  kappa/(1 + mu^2) for kappa, plaquettes 2 - ((1 - mu^2)/(1 + mu^2))^2 over (1 + mu^2)^2 times as much.
  """
  phases = dirac.check_boundary(boundary, len(lattice))
  ns = 2 ** (len(lattice) // 2)
  scale, cosine = 1 + twisted_mass**2, (1 - twisted_mass**2) / (1 + twisted_mass**2)
  on_lines, on_plaquettes = kappa / scale, (2 - cosine**2) / scale**2
  lines = tuple(2.0 ** (n + 1) * ns * on_lines**n * float(np.real(s)) for n, s in zip(lattice, phases))
  return Target(beta + 8 * ns * nc * kappa**4 * on_plaquettes, lines)


def target_action(target: Target, u: Array) -> Array:
  """The action that a Target stands for, without constants, at links u [Nd, Nc, Nc, *L]: a scalar."""
  return gauge.wilson(u, target.beta) + gauge.winding(u, target.lines)


def analytic_coefficients(
  target: Target, nc: int, lattice: sites.Extents, order: int, degree: int, more: int = 0
) -> np.ndarray | Array:
  """c_kj of c_k(t) = sum_j c_kj t^j for W_k, [8 + Nd + more, degree + 1]; traced where the target's couplings are.

  Leading order: S~ = S/(4 C_F) for plaquettes and S/(L C_F) for lines. Next order, plaquettes only: t S1 with
  L0 S1 = -sum d^a S d^a S0 + const, where for X = M - M^dag, M the plaquettes along a link,
  sum d^a W0 d^a W0 = -(tr X^2 - (tr X)^2/Nc)/2 = (W1 - W2 - 2 W5) + (W4 + 2 W6 - W3 - 4 W7)/Nc + const.
  For SU(3) this is (beta^2/192)(-4/33, 12/119, 1/33, -5/119, 3/10, -1/5, 1/9). Luescher, arXiv:0907.5491, sec. 4.3.
  `more` loops have none to this order.
  """
  table, _ = loop_action.laplacian_table(nc, lattice)
  n = loop_action.NUM_LOCAL
  unit, squared, *lines = np.zeros((2 + len(lattice), n + len(lattice) + more, degree + 1))
  unit[0, 0] = -1 / (2 * nc) / table[0, 0]
  for mu, line in enumerate(lines):
    line[n + mu, 0] = 0.5 / table[n + mu, n + mu]
  if order == 2:
    inv = 0.0 if nc == 1 else 1.0 / nc
    products = np.array([1, -1, -inv, inv, -2, 2 * inv, -4 * inv])
    prefactor = (1 / (2 * nc)) ** 2 / table[0, 0]
    # L0 acts on coefficients from the right. It is singular for SU(2), where W5 - W6 is a constant: the least-squares
    # solution leaves that constant out.
    squared[1:n, 1] = np.linalg.lstsq(table[1:n, 1:n].T, -prefactor * products, rcond=1e-12)[0]
  plaquettes = target.beta * unit + target.beta**2 * squared
  return plaquettes + sum(coupling * line for coupling, line in zip(target.lines, lines))


def num_loops(config: Config, nd: int) -> int:
  """Loops of the flow's action: W0 to W7, the lines of all directions, and config.loops."""
  return loop_action.NUM_LOCAL + nd + len(config.loops)


def make(config: Config, target: Target, nc: int, lattice: sites.Extents) -> Flow:
  """The flow on links [Nd, Nc, Nc, *L]. Parameters: {"deviation": [num_loops, degree + 1]}, initially zero.

  c_kj = analytic_kj + scale_k deviation_kj with `natural_scale` of the loops' modules: raw coefficients differ by factors
  of a hundred, and one learning rate would wreck the small ones before it moves the large.

  Forward integrates from t = 0 to 1, inverse from 1 to 0 with the same table: they undo each other up to the step error.
  Raises ValueError where an extent is below 3, or for loops that do not fit on the lattice.
  """
  if not config.lines:
    target = pure_gauge(target.beta, len(lattice))
  coefficients = analytic_coefficients(target, nc, lattice, config.order, config.degree, len(config.loops))
  lines = tuple(range(len(lattice))) if config.lines else ()
  wilson_loops.check(config.loops, lattice, beside_pairs=config.order == 2)
  natural = loop_action.natural_scale(nc, len(lattice)), wilson_loops.natural_scale(config.loops, nc, len(lattice))
  scale = np.concatenate(natural)[:, None]
  own = loop_action.evaluate_plaquette if config.order == 1 else loop_action.evaluate
  evaluate = wilson_loops.extend(own, config.loops)

  def rate(params: Params):
    def velocity(t: Array, v: Array) -> tuple[Array, Array]:
      powers = t ** jnp.arange(config.degree + 1, dtype=v.real.dtype)
      c = (coefficients + scale * params["deviation"]).astype(v.real.dtype) @ powers
      action = evaluate(v, lattice, c, lines)
      return -action.gradient, action.laplacian

    return velocity

  def run(params: Params, u: Array, start: float, stop: float) -> FlowResult:
    sites.check(u, nc, lattice)
    end = integrators.transport(
      integrators.CARPENTER_KENNEDY4, rate(params), sites.flatten(u), start, stop, config.steps
    )
    return FlowResult(sites.unflatten(end.u, lattice), end.integral)

  def init(key: Key) -> Params:
    del key  # The analytic flow is the start; nothing is drawn.
    return {"deviation": jnp.zeros(coefficients.shape)}

  return precision.of_flow(
    Flow(
      init=init,
      forward=lambda params, z: run(params, z, 0.0, 1.0),
      inverse=lambda params, u: run(params, u, 1.0, 0.0),
    )
  )


def path(
  coefficients: Array | np.ndarray, lattice: sites.Extents, steps: int = 1, shapes: tuple[str, ...] = ()
) -> Callable[..., FlowResult]:
  """(links, start, stop) -> FlowResult of the flow from e^{-start S} to e^{-stop S}, S = -(1/Nc) sum Re tr P.

  dU/ds = -T^a d^a S~_s U, S~_s = sum_kj coefficients_kj s^j W_k; coefficients: [8 + shapes, degree + 1], as
  `continuity.fit` finds them for a theory. Backwards for stop < start, in `steps` equal steps. Raises ValueError for
  another number of loops, or shapes that `wilson_loops.check` refuses.
  """
  wilson_loops.check(shapes, lattice)
  coefficients = jnp.asarray(coefficients)
  local, number = loop_action.NUM_LOCAL, np.shape(coefficients)[0]
  if number != local + len(shapes):
    raise ValueError(f"a path has coefficients of {local + len(shapes)} loops, not {number}")
  # No lines: their coefficients stay zero.
  lines = jnp.zeros((len(lattice), np.shape(coefficients)[1]))
  padded = jnp.concatenate([coefficients[:local], lines, coefficients[local:]])
  evaluate = wilson_loops.extend(loop_action.evaluate, shapes)

  def rate(s: Array, v: Array) -> tuple[Array, Array]:
    powers = s ** jnp.arange(padded.shape[1], dtype=v.real.dtype)
    action = evaluate(v, lattice, padded.astype(v.real.dtype) @ powers)
    return -action.gradient, action.laplacian

  def run(u: Array, start: Array, stop: Array) -> FlowResult:
    end = integrators.transport(integrators.CARPENTER_KENNEDY4, rate, sites.flatten(u), start, stop, steps)
    return FlowResult(sites.unflatten(end.u, lattice), end.integral)

  return precision.of_input(run)
