"""A barrier against XLA's fusion on CPUs.

XLA for CPUs fuses a product into whatever reads it and computes it again for every element read; two or three products
deep, a kernel runs ten times slower than its arithmetic. `optimization_barrier` is dropped before fusion happens. A loop
that never runs, but whose trip count only the data decide, is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.extend as jex
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad, batching, mlir

from flowqcd import domains
from flowqcd.types import Array

Tree = TypeVar("Tree")


def materialise(tree: Tree) -> Tree:
  """The same arrays, written to memory before anything reads them (on CPUs; elsewhere a plain identity).

  Also a barrier for the tangents that go with them, and for the cotangents on the way back.
  """
  return _identity(_barrier_p, tree)


def materialise_cotangents(tree: Tree) -> Tree:
  """The same arrays; on the way back their cotangents are written to memory before anything reads them.

  For views of a field, slices and shifts: their derivatives add up on the field, and what made each would be computed again
  there for every element.
  """
  return _identity(_view_p, tree)


def _identity(primitive: jex.core.Primitive, tree: Tree) -> Tree:
  leaves, structure = jax.tree.flatten(tree)
  # Device by device: the loop's condition reads an array, which would otherwise be gathered for it.
  return jax.tree.unflatten(structure, domains.locally(primitive.bind, *map(jnp.asarray, leaves)))


def _pass_through_loop(*arrays: Array) -> list[Array]:
  probe = arrays[0].ravel()[0].real
  # No finite or infinite float exceeds infinity, and NaN compares false, so the body never runs.
  never = lambda state: state[0] > float("inf")
  body = lambda state: (state[0], jax.tree.map(_doubled, state[1]))
  return lax.while_loop(never, body, (probe, list(arrays)))[1]


def _doubled(x: Array) -> Array:
  # Any change will do: values that a loop body leaves alone are hoisted out, and the barrier with them.
  return x + x


def _primitive(name: str) -> jex.core.Primitive:
  """The identity of any number of arrays, linear, whose transpose is the barrier."""
  primitive = jex.core.Primitive(name)
  primitive.multiple_results = True
  primitive.def_impl(lambda *arrays: list(arrays))
  primitive.def_abstract_eval(lambda *arrays: list(arrays))
  ad.primitive_jvps[primitive] = lambda primals, tangents: (primitive.bind(*primals), _known(primitive, tangents))
  ad.primitive_transposes[primitive] = lambda cotangents, *_: _known(_barrier_p, cotangents)
  batching.primitive_batchers[primitive] = lambda arrays, axes: (primitive.bind(*arrays), axes)
  mlir.register_lowering(primitive, lambda _, *arrays: arrays)
  return primitive


def _known(primitive: jex.core.Primitive, arrays: Sequence[Any]) -> list[Any]:
  """The primitive of those that are no symbolic zeros."""
  known = [i for i, x in enumerate(arrays) if type(x) is not ad.Zero]
  found = dict(zip(known, primitive.bind(*(arrays[i] for i in known)))) if known else {}
  return [found.get(i, x) for i, x in enumerate(arrays)]


_barrier_p, _view_p = _primitive("materialise"), _primitive("materialise_cotangents")
mlir.register_lowering(_barrier_p, mlir.lower_fun(_pass_through_loop, multiple_results=True), platform="cpu")
