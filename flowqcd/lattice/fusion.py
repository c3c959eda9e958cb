"""A barrier against XLA's fusion on CPUs.

XLA for CPUs fuses a product into whatever reads it and computes it again for every element read; two or three products
deep, a kernel runs ten times slower than its arithmetic. `optimization_barrier` is dropped before fusion happens. A loop
that never runs, but whose trip count only the data decide, is not.
"""

from __future__ import annotations

from typing import TypeVar

import jax
from jax import lax

from flowqcd.types import Array

Tree = TypeVar("Tree")


@jax.custom_vjp
def materialise(tree: Tree) -> Tree:
  """The same arrays, written to memory before anything reads them (on CPUs; elsewhere a plain identity).

  Also a barrier for the cotangents on the way back.
  """
  return lax.platform_dependent(tree, cpu=_pass_through_loop, default=lambda x: x)


def _pass_through_loop(tree: Tree) -> Tree:
  probe = jax.tree.leaves(tree)[0].ravel()[0].real
  # No finite or infinite float exceeds infinity, and NaN compares false, so the body never runs.
  never = lambda state: state[0] > float("inf")
  body = lambda state: (state[0], jax.tree.map(_doubled, state[1]))
  return lax.while_loop(never, body, (probe, tree))[1]


def _doubled(x: Array) -> Array:
  # Any change will do: values that a loop body leaves alone are hoisted out, and the barrier with them.
  return x + x


def _forward(tree: Tree) -> tuple[Tree, None]:
  return materialise(tree), None


def _backward(_: None, cotangents: Tree) -> tuple[Tree]:
  return (materialise(cotangents),)


materialise.defvjp(_forward, _backward)


@jax.custom_vjp
def materialise_cotangents(tree: Tree) -> Tree:
  """The same arrays; on the way back their cotangents are written to memory before anything reads them.

  For views of a field, slices and shifts: their derivatives add up on the field, and what made each would be computed again
  there for every element.
  """
  return tree


materialise_cotangents.defvjp(lambda tree: (tree, None), _backward)
