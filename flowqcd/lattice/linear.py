"""Linear maps whose transpose is written by hand, under every transformation of JAX's.

A function with a `custom_vjp` has no forward mode, and none of its derivatives has another derivative. Here a function is
given its derivative as a linear map (`jax.custom_jvp`, in whose rule stands `call`), and that map its transpose: forward
mode applies the one, reverse mode the other, and both can be differentiated again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend as jex
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.interpreters import ad, batching, mlir

from flowqcd.types import Array

Map = Callable[[tuple[Array, ...], tuple[Array, ...]], tuple[Array, ...]]
"""(constants, x) -> y, linear in x."""


def call(apply: Map, transpose: Map, constants: Sequence[Array], x: Sequence[Array]) -> tuple[Array, ...]:
  """apply(constants, x), of which transpose(constants, y) is the transpose in x: sum y apply(x) = sum x transpose(y).

  No complex conjugation, which is JAX's convention. Derivatives by the constants are those of the two as they are written.
  """
  return tuple(_call_p.bind(*constants, *x, apply=apply, transpose=transpose, count=len(constants)))


def _value(*args: Array, apply: Map, transpose: Map, count: int) -> tuple[Array, ...]:
  del transpose
  return tuple(apply(args[:count], args[count:]))


def _jvp(primals: Sequence[Array], tangents: Sequence[Any], *, apply: Map, transpose: Map, count: int) -> tuple:
  constants, x = primals[:count], primals[count:]
  y = call(apply, transpose, constants, x)
  parts = []
  if any(type(t) is not ad.Zero for t in tangents[count:]):
    parts.append(call(apply, transpose, constants, [ad.instantiate_zeros(t) for t in tangents[count:]]))
  moving = [i for i, t in enumerate(tangents[:count]) if type(t) is not ad.Zero]
  if moving:

    def of_moving(*some: Array) -> tuple[Array, ...]:
      every = list(constants)
      for i, value in zip(moving, some):
        every[i] = value
      return apply(tuple(every), tuple(x))

    parts.append(jax.jvp(of_moving, [constants[i] for i in moving], [tangents[i] for i in moving])[1])
  if not parts:
    return y, [jnp.zeros_like(z) for z in y]
  return y, [functools.reduce(ad.add_tangents, terms) for terms in zip(*parts)]


def _transpose(cotangents: Sequence[Any], *args: Any, apply: Map, transpose: Map, count: int) -> list:
  g = [ad.instantiate_zeros(z) for z in cotangents]
  found = call(transpose, apply, args[:count], g)
  return [None] * count + [y if ad.is_undefined_primal(x) else None for x, y in zip(args[count:], found)]


def _vmap(args: Sequence[Array], axes: Sequence[int | None], *, apply: Map, transpose: Map, count: int) -> tuple:
  size = next(x.shape[axis] for x, axis in zip(args, axes) if axis is not None)
  front = [x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(args, axes)]
  # Copies of x, so that the transpose of a batch is the batch of transposes.
  x = [z if axis is not None else jnp.broadcast_to(z, (size, *z.shape)) for z, axis in zip(front[count:], axes[count:])]
  batched = tuple(None if axis is None else 0 for axis in axes[:count])
  over = lambda f: jax.vmap(f, (batched, 0))
  y = call(over(apply), over(transpose), front[:count], x)
  return y, [0] * len(y)


_call_p = jex.core.Primitive("linear")
_call_p.multiple_results = True
_call_p.def_impl(_value)
_call_p.def_abstract_eval(
  lambda *args, **params: [
    ShapedArray(y.shape, y.dtype) for y in jax.eval_shape(lambda *x: _value(*x, **params), *args)
  ]
)
ad.primitive_jvps[_call_p] = _jvp
ad.primitive_transposes[_call_p] = _transpose
batching.primitive_batchers[_call_p] = _vmap
mlir.register_lowering(_call_p, mlir.lower_fun(_value, multiple_results=True))
