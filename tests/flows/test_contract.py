"""Flows that break one promise each, and which entry says so."""

import jax.numpy as jnp
import numpy as np
import pytest
from fields import links

from flowqcd.flows import contract
from flowqcd.types import Flow, FlowResult


def _flow(forward, inverse, logdet=0.0, back=0.0):
  """A flow from two maps of links and two constant log-determinants."""
  result = lambda u, value: FlowResult(u, jnp.full((), value, u.real.dtype))
  return Flow(lambda key: (), lambda params, z: result(forward(z), logdet), lambda params, u: result(inverse(u), back))


_SAME = lambda u: u
_TURN = jnp.diag(jnp.exp(jnp.asarray([0.3j, -0.3j])))[None, :, :, None, None]
_turned = lambda sign: lambda u: jnp.einsum("mijtx,mjktx->miktx", _TURN**sign * jnp.eye(2)[:, :, None, None] + 0 * u, u)
BROKEN = {
  "none": _flow(_SAME, _SAME),
  "unitarity inverse equivariance": _flow(lambda u: 1.1 * u + 0.1, _SAME),
  "inverse": _flow(_SAME, lambda u: -u),
  "logdets": _flow(_SAME, _SAME, 0.0, 0.2),
  "jacobian": _flow(_SAME, _SAME, 0.2, -0.2),
  "equivariance": _flow(_turned(1), _turned(-1)),
}


@pytest.mark.parametrize("names", BROKEN)
def test_what_is_broken_is_named(names):
  found = contract.violations(BROKEN[names], (), links(2, (2, 2)).astype(np.complex64))
  broken = {name for name, value in found._asdict().items() if value > 1e-8}
  wanted = set(names.split()) - {"none"}
  # A map that leaves the group has another Jacobian too.
  assert broken - {"jacobian"} == wanted - {"jacobian"} and ("jacobian" in broken or "jacobian" not in wanted)
  assert "unitarity" in wanted or ("jacobian" in broken) == ("jacobian" in wanted)


def test_invariance_of_the_log_determinant():
  trace = lambda u: FlowResult(u, jnp.sum(u[:, 0, 0]).real)
  flow = Flow(lambda key: (), lambda params, z: trace(z), lambda params, u: FlowResult(u, -trace(u).logdet))
  found = contract.violations(flow, (), links(2, (2, 2)), dense=False)
  assert found.invariance > 0.1 and found.logdets == 0 and np.isnan(found.jacobian)


def test_a_jacobian_that_is_known():
  """U -> U^2 of U(1): every angle is doubled."""
  z = links(1, (2, 3))
  assert contract.log_jacobian(lambda u: u * u, z) == pytest.approx(12 * np.log(2), abs=1e-8)
