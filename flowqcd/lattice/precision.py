"""Compute in the precision of the input, whatever the global 64-bit switch says.

Functions of links, actions and flows do, called with NumPy arrays. It ends where JAX takes the array before they do: under
`jax.jit`, `jax.vmap`, `jax.grad` and their like, which round NumPy's complex128 by the switch, and in what is made to run
under them: Markov chains, whose `init` warns, Dirac operators and solvers.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from flowqcd import domains
from flowqcd.lattice import layout
from flowqcd.types import Action, AnyArray, Array, Flow


def in_single(function: Callable[..., Any]) -> Callable[..., Any]:
  """The same function of arrays computed in single precision, the result in the precision of its first argument.

  A force that is rounded so is still a function of the links alone: a trajectory that it drives in double precision is
  reversible and keeps volume as well as with the exact force, and only the acceptance can tell the difference.
  """

  def convert(x: Any, real: Any, complex_: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
      return x
    return x.astype(complex_ if jnp.iscomplexobj(x) else real)

  @functools.wraps(function)
  def wrapped(first: Any, *args: Any) -> Any:
    rounded = jax.tree.map(lambda x: convert(x, jnp.float32, jnp.complex64), (first, *args))
    wide = jnp.finfo(first.dtype).dtype
    back = jnp.result_type(wide, jnp.complex64)
    return jax.tree.map(lambda x: convert(x, wide, back), function(*rounded))

  return wrapped


P = ParamSpec("P")
R = TypeVar("R")
OfArray = Callable[Concatenate[Array, P], R]
"""A function whose first argument is an array of JAX's."""
OfAnyArray = Callable[Concatenate[AnyArray, P], R]


def of_input(function: OfArray[P, R]) -> OfAnyArray[P, R]:
  """`function` computed in the precision of its first argument; NumPy in, NumPy out.

  JAX would otherwise round complex128 input to complex64 without a word, and so would the next line with a 64-bit JAX
  result: hence 64-bit mode for 64-bit arrays, and NumPy results for a NumPy array. JAX arrays carry their precision with
  them, and under a trace the caller has chosen: both are left alone.
  """

  @functools.wraps(function)
  def wrapped(u: AnyArray, *args: P.args, **kwargs: P.kwargs) -> R:
    return _computed(function, (u, *args), kwargs, 0)

  return wrapped


F = TypeVar("F", bound=Callable[..., Any])


def of_argument(position: int) -> Callable[[F], F]:
  """`of_input` by the argument of this number: the links u of (params, u), say."""

  def decorate(function: F) -> F:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
      return _computed(function, args, kwargs, position)

    return cast(F, wrapped)

  return decorate


def of_links(action: Action) -> Action:
  """The same action, computed in the precision of its links as `of_input` has it."""
  local = None if action.local is None else of_input(action.local)
  return Action(of_argument(1)(action.refresh), of_input(action.value), of_input(action.force), local)


def of_flow(flow: Flow) -> Flow:
  """The same flow, computed in the precision of its links as `of_input` has it."""
  return Flow(flow.init, of_argument(1)(flow.forward), of_argument(1)(flow.inverse))


def _computed(function: Callable[..., Any], args: tuple, kwargs: dict[str, Any], position: int) -> Any:
  if position >= len(args) or any(isinstance(x, Tracer) for x in jax.tree.leaves((args, kwargs))):
    return function(*args, **kwargs)
  x = args[position]
  with jax.enable_x64(True) if _is_wide(x) and not _in_64_bits() else contextlib.nullcontext():
    args, kwargs = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, (args, kwargs))
    result = function(*args[:position], jnp.asarray(args[position]), *args[position + 1 :], **kwargs)
  return jax.tree.map(_to_numpy, result) if isinstance(x, np.ndarray) else result


def rounded(u: AnyArray, what: str) -> Array:
  """u as an array of JAX's, with a warning where that takes its double precision.

  For what is made to be compiled and repeated, where `of_input` could not keep the promise.
  """
  if not isinstance(u, Tracer) and _is_wide(u) and not _in_64_bits():
    warnings.warn(
      f"{what} in double precision is computed in single precision, since JAX's 64-bit mode is off; "
      'jax.config.update("jax_enable_x64", True), before anything else is computed, turns it on',
      stacklevel=4,
    )
  return jnp.asarray(u)


def _is_wide(x: Any) -> bool:
  return getattr(x, "dtype", None) in (np.complex128, np.float64)


def compiled(*static: str) -> Callable[[OfArray[P, R]], OfAnyArray[P, R]]:
  """`of_input` for functions of links, and one compiled program where it is called outside of a trace.

  Operation by operation a function like the topological charge would be a hundred small programs, each compiled when it
  is first met. static: names of arguments that are no arrays.
  """

  def decorate(function: OfArray[P, R]) -> OfAnyArray[P, R]:
    program = jax.jit(function, static_argnames=static)

    @functools.wraps(function)
    def chosen(u: Array, *args: P.args, **kwargs: P.kwargs) -> R:
      if isinstance(u, Tracer):  # Part of what is being traced, as if it were written there.
        return function(u, *args, **kwargs)
      layout.refuse_sites_first(u)  # Within the program there are no values to look at.
      return program(u, *args, **kwargs)

    return of_input(chosen)

  return decorate


def _in_64_bits() -> bool:
  """JAX's switch, as it stands here."""
  return jnp.result_type(float) == np.float64


def _to_numpy(x: Any) -> Any:
  """A JAX array as an array of NumPy's that can be written to, or as a scalar of NumPy's; what is traced stays so."""
  return np.array(x)[()] if isinstance(x, jax.Array) and not isinstance(x, Tracer) else x


def added(terms: Iterable[Any]) -> Any:
  """The sum of one or more terms of any kind, without the zero that `sum` starts from."""
  return functools.reduce(operator.add, terms)


_IN_TURN = 64
"""Entries that are added one after the other."""


def pairwise_sum(x: Array) -> Array:
  """The sum of all entries, each axis by halves, whose rounding grows with the logarithm of their number.

  Within each device's piece of a lattice first.
  """
  x = domains.pieces(jnp.atleast_1d(x))
  while x.ndim:
    while x.shape[-1] > _IN_TURN:
      half = x.shape[-1] // 2
      # The middle entry of an odd number waits for the next round.
      x = jnp.concatenate([x[..., :half] + x[..., half : 2 * half], x[..., 2 * half :]], axis=-1)
    x = jnp.sum(x, axis=-1)
  return x
