"""The contracts that every part of flowqcd is written against.

Arrays are unbatched and sites come last: links `u [Nd, Nc, Nc, *L]`, site matrices `g [Nc, Nc, *L]`, spinors
`psi [Ns, Nc, *L]`. Axis 0 of L, and direction 0, is time. `jax.vmap` adds batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array
AnyArray = jax.Array | np.ndarray
"""An array of JAX's or of NumPy's."""
Key = jax.Array
Params = Any
"""Any pytree of arrays."""
Fields = Any
"""Auxiliary fields of an action (pseudofermions), a pytree of arrays; `()` when there are none."""
Boundary = tuple[complex | float, ...]
"""One phase per direction, that a fermion picks up on crossing the last slice: -1 is antiperiodic."""


class Refreshed(NamedTuple):
  """Auxiliary fields drawn from their conditional law at fixed u, and S(u, fields), which costs nothing at a draw.

  local: what `Action.local` gives for them, where the action has it.
  """

  fields: Fields
  value: Array
  local: Any = None

  @property
  def terms(self) -> Any:
    """A tree of arrays whose entries add up to S: `local`, or the value alone."""
    return self.value if self.local is None else self.local


class Action(NamedTuple):
  """A lattice action whose Boltzmann weight is e^{-S(u)}, possibly as an integral over auxiliary fields.

  refresh: (key, u) -> Refreshed.
  value: (u, fields) -> S, a real scalar; NaN when a solver inside did not converge, never a wrong number.
  force: (u, fields) -> T^a d^a S, antihermitian, in the shape of u.
  local: (u, fields) -> a tree of arrays whose entries add up to S. S is extensive and its changes are not: they are
  taken entry by entry, for S itself rounds in single precision by more than they may. None where S has no such form.
  """

  refresh: Callable[[Key, Array], Refreshed]
  value: Callable[[Array, Fields], Array]
  force: Callable[[Array, Fields], Array]
  local: Callable[[Array, Fields], Any] | None = None

  def terms(self, u: Array, fields: Fields) -> Any:
    """A tree of arrays whose entries add up to S: `local`, or the value alone."""
    return self.value(u, fields) if self.local is None else self.local(u, fields)


def require_action(action: Any) -> None:
  """Raise TypeError for what is no Action, saying how it becomes one."""
  if isinstance(action, Action):
    return
  if isinstance(action, list | tuple):
    remedy = "a sum takes them one by one, gauge.total(first, second)"
  elif callable(action):
    remedy = "a real function of the links becomes one by gauge.from_function"
  else:
    remedy = "gauge.action and pseudofermion.even_odd make some"
  raise TypeError(f"an Action is needed, not a {type(action).__name__}: {remedy}")


def require_finite(**numbers: Any) -> None:
  """Raise ValueError for couplings that are NaN or infinite. JAX arrays, which may be traced, are not looked at."""
  for name, value in numbers.items():
    if not isinstance(value, Array) and not np.all(np.isfinite(value)):
      raise ValueError(f"{name} must be a finite number, not {value}")


class LinearOperator(NamedTuple):
  """A linear map A on spinor fields and its adjoint in the inner product <a, b> = sum conj(a) b.

  derivative: (a, b) -> T^a d^a Re <a, A b> at the links that A was made of, antihermitian [Nd, Nc, Nc, V]; None where
  nobody needs it.
  """

  apply: Callable[[Array], Array]
  adjoint: Callable[[Array], Array]
  derivative: Callable[[Array, Array], Array] | None = None


class FlowResult(NamedTuple):
  """Image of a point under a flow and log |det| of the Jacobian there (Haar or flat measure)."""

  point: Array
  logdet: Array


class Flow(NamedTuple):
  """An invertible map phi = f(z): log q(phi) = log r(z) - logdet, arXiv:2208.03832 eq. 1.

  init: key -> params.  forward: (params, z) -> FlowResult(phi, log|det d phi / d z|).
  inverse: (params, phi) -> FlowResult(z, log|det d z / d phi|).
  """

  init: Callable[[Key], Params]
  forward: Callable[[Params, Array], FlowResult]
  inverse: Callable[[Params, Array], FlowResult]


class LinearFlow(NamedTuple):
  """An invertible linear map of spinor fields, phi = A z. logdet: log |det A| of the real map, 2 ln |det| of the complex.

  forward: z -> phi.  inverse: phi -> z.
  """

  forward: Callable[[Array], Array]
  inverse: Callable[[Array], Array]
  logdet: Array


class ConditionalFlow(NamedTuple):
  """A linear flow of pseudofermions for every gauge field: init: key -> params; at: (params, u) -> LinearFlow.

  Covariant: A(U^g) g z = g A(U) z.
  """

  init: Callable[[Key], Params]
  at: Callable[[Params, Array], LinearFlow]


class KernelStep(NamedTuple):
  """New state of a Markov chain and what happened on the way (a NamedTuple of the kernel's own)."""

  state: Any
  info: Any


def require_state(state: Any) -> None:
  """Raise TypeError for what a kernel cannot step from, bare links above all."""
  if hasattr(state, "u"):
    return
  if isinstance(state, KernelStep):
    raise TypeError("a kernel steps from a state: from the .state of its last step, not from all of the KernelStep")
  what = f"an array {tuple(state.shape)}" if hasattr(state, "shape") else f"a {type(state).__name__}"
  raise TypeError(f"a kernel steps from a state, which its init(key, u) makes of links u, not from {what}")


class Kernel(NamedTuple):
  """A Markov kernel: init(key, u) -> state, step(key, state) -> KernelStep. Every state has the field `u`."""

  init: Callable[[Key, Array], Any]
  step: Callable[[Key, Any], KernelStep]


class ScalarFunction(Protocol):
  """A real function of the links."""

  def __call__(self, u: Array) -> Array:
    """Value at u [Nd, Nc, Nc, *L], a real scalar."""
    ...
