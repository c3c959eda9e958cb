"""Compute in the precision of the input, whatever the global 64-bit switch says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


def of_input(function: F) -> F:
  """Run `function` in 64-bit mode when its first argument is a NumPy array of 64-bit numbers.

  JAX would otherwise round complex128 input to complex64 without a word. JAX arrays carry their precision with them,
  and under a trace the caller has chosen: both are left alone.
  """

  @functools.wraps(function)
  def wrapped(u: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(u, np.ndarray) and u.dtype in (np.complex128, np.float64):
      with jax.enable_x64(True):
        return function(jax.numpy.asarray(u), *args, **kwargs)
    if isinstance(u, jax.Array) and not isinstance(u, jax.core.Tracer):
      if u.dtype in (np.complex128, np.float64) and not jax.config.jax_enable_x64:
        with jax.enable_x64(True):
          return function(u, *args, **kwargs)
    return function(jax.numpy.asarray(u), *args, **kwargs)

  return wrapped  # type: ignore[return-value]
