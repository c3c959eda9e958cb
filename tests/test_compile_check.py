"""The count of kernels that `make compile-check` prints."""

import textwrap

import compile_check
import jax
import jax.numpy as jnp

TEXT = textwrap.dedent("""
  HloModule m
  %inner (p: f32[2]) -> f32[2] {
    %p = f32[2]{0} parameter(0)
    ROOT %sin.1 = f32[2]{0:T(8,128)} sine(%p)
  }
  %body (p: (s32[], f32[2])) -> (s32[], f32[2]) {
    %p = (s32[], f32[2]{0}) parameter(0)
    %x = f32[2]{0} get-tuple-element(%p), index=1
    %f = f32[2]{0} fusion(%x), kind=kLoop, calls=%inner
    %g = f32[2]{0} custom-call(%f), custom_call_target="solve"
    ROOT %t = (s32[], f32[2]{0}) tuple(%x, %g)
  }
  %test (p: (s32[], f32[2])) -> pred[] {
    %p = (s32[], f32[2]{0}) parameter(0)
    ROOT %c = pred[] fusion(%p), kind=kLoop, calls=%inner
  }
  %short (p: f32[2]) -> f32[2] {
    ROOT %p = f32[2]{0} parameter(0)
  }
  ENTRY %main (a: f32[2]) -> f32[2] {
    %a = f32[2]{0} parameter(0)
    %w = (s32[], /*index=1*/f32[2]{0}) while(%a), condition=%test, body=%body, backend_config={"known_trip_count":{"n":"5"}}
    %v = (s32[], f32[2]{0}) while(%a), condition=%test, body=%body
    %y = f32[2]{0} conditional(%a), branch_computations={%short, %inner}
    ROOT %z = f32[2]{0} copy(%y)
  }
""")


def test_kernels_are_counted():
  """Two in the body five times and once, one in the longer branch, and a copy: fusions are not looked into."""
  assert compile_check.kernels(TEXT) == 2 * 5 + 2 + 1 + 1


def test_a_scan_counts_as_often_as_it_runs():
  step = lambda x, _: (jnp.sort(jnp.sin(x)), None)
  run = lambda length: jax.jit(lambda x: jax.lax.scan(step, x, length=length)[0]).lower(jnp.ones(8)).compile()
  few, more, most = (compile_check.kernels(run(length).as_text()) for length in (30, 70, 110))
  assert most - more == more - few and (more - few) % 40 == 0 and more - few >= 80
