"""NumPy in, NumPy out: double precision lives through the library's functions and the user's next line."""

import chex
import fields
import jax
import numpy as np
import pytest

from flowqcd.analysis import weights
from flowqcd.flows import conv, coupling, trivializing
from flowqcd.lattice import loops, precision, sites
from flowqcd.mcmc import heatbath, hmc, metropolis
from flowqcd.models import marginal, priors
from flowqcd.theory import determinant, gauge, observables, pseudofermion, wilson_flow

LATTICE = (2, 4)
FUNCTIONS = {
  "plaquette": observables.plaquette,
  "mean_plaquette": observables.mean_plaquette,
  "polyakov_loop": observables.polyakov_loop,
  "pion_correlator": lambda u: observables.pion_correlator(u, 0.1),
  "field_strength": observables.field_strength,
  "energy_density": observables.energy_density,
  "topological_charge": observables.topological_charge,
  "flow": lambda u: wilson_flow.flow(u, 0.02, 0.02),
  "adaptive": lambda u: wilson_flow.adaptive(u, 0.02).u,
  "log_det": lambda u: determinant.log_det(u, 0.1),
  "log_det_regulated": lambda u: determinant.log_det_regulated(u, 0.1),
  "wilson": lambda u: gauge.wilson(u, 2.0),
  "wilson_force": lambda u: gauge.wilson_force(u, 2.0),
  "improved": lambda u: gauge.improved(u, 2.0, gauge.IWASAKI),
  "improved_force": lambda u: gauge.improved_force(u, 2.0, gauge.IWASAKI),
  "winding": lambda u: gauge.winding(u, (0.3, 0.2)),
  "winding_force": lambda u: gauge.winding_force(u, (0.3, 0.2)),
  "action": lambda u: gauge.action(2.0, (0.3, 0.2)).value(u, ()),
  "action's force": lambda u: gauge.action(2.0, (0.3, 0.2)).force(u, ()),
  "from_function": lambda u: gauge.from_function(lambda u: gauge.winding(u, (0.3, 0.2))).force(u, ()),
  "sum's terms": lambda u: gauge.total(gauge.action(2.0, (0.3, 0.2))).local(u, ((),))[0][1],
  "pseudofermions": lambda u: _pseudofermion.refresh(jax.random.key(0), u).fields,
  "pseudofermions' value": lambda u: _pseudofermion.value(u, np.ones((2, 1, 4), u.dtype)),
  "pseudofermions' force": lambda u: _pseudofermion.force(u, np.ones((2, 1, 4), u.dtype)),
  "one plaquette": lambda u: loops.plaquette(u, 0, 1),
  "staple": lambda u: loops.staple(u, 0),
  "rectangle": lambda u: loops.rectangle(u, 0, 1),
  "clover_leaf": lambda u: loops.clover_leaf(u, 0, 1),
  "polyakov_line": loops.polyakov_line,
  "plaquette_traces": loops.plaquette_traces,
  "gauge_transform": lambda u: sites.gauge_transform(u, _gauge_function(u.dtype)),
  "translate": lambda u: sites.translate(u, (1, 1)),
  "sites_first": lambda u: sites.from_sites_first(sites.to_sites_first(u)),
  "ess": lambda u: weights.ess(np.asarray(u).real.ravel()),
  "log_mean_weight": lambda u: weights.log_mean_weight(np.asarray(u).real.ravel()),
}


_pseudofermion = pseudofermion.even_odd(0.1)


def _gauge_function(dtype):
  return np.exp(1j * np.arange(8.0)).reshape(1, 1, *LATTICE).astype(dtype)


@pytest.fixture(scope="module")
def links():
  return np.asarray(fields.links(1, LATTICE))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_double_precision_survives_without_the_switch(name, links):
  function = FUNCTIONS[name]
  exact = function(links)
  with jax.enable_x64(False):
    found, single = function(links), function(links.astype(np.complex64))
    following = found * 3
  for result in (found, following, single):
    assert isinstance(result, np.ndarray | np.generic)
  assert following.dtype in (np.float64, np.complex128)
  np.testing.assert_allclose(following, 3 * exact, rtol=1e-12, atol=1e-12)
  assert single.dtype in (np.float32, np.complex64)
  if found.ndim:
    found[...] = 0  # It is the caller's.


def _doubles(jaxpr):
  """Operations of a program, and of those in it, whose results are of double precision, but for Python's numbers."""
  found = set()
  for equation in jaxpr.eqns:
    double = lambda x: str(getattr(x, "dtype", "")) in ("complex128", "float64") and not x.weak_type
    found |= {equation.primitive.name for x in equation.outvars if double(x.aval)}
    inner = jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"))
    found |= set().union(*(_doubles(getattr(x, "jaxpr", x)) for x in inner if hasattr(getattr(x, "jaxpr", x), "eqns")))
  return found


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("ess", "log_mean_weight")])
def test_single_precision_computes_nothing_in_double(name, links):
  """With the switch on a stray constant makes all that follows complex128, which TPUs refuse."""
  u = jax.numpy.asarray(links, "complex64")
  with jax.enable_x64(True):
    assert not _doubles(jax.make_jaxpr(FUNCTIONS[name])(u).jaxpr)
    assert _doubles(jax.make_jaxpr(lambda u: u + np.zeros(1))(u).jaxpr)


@pytest.mark.parametrize("nc", [1, 2, 3])
def test_spectral_layers_in_single_precision_compute_nothing_in_double(nc):
  flow = coupling.make(coupling.Config(layers=1, bins=2, net=conv.Config(hidden=(2,))), nc, SQUARE)
  u = jax.numpy.asarray(fields.links(nc, SQUARE), "complex64")
  with jax.enable_x64(True):
    params = jax.tree.map(np.float32, flow.init(jax.random.key(0)))
    for move in (flow.forward, flow.inverse):
      gradient = jax.grad(lambda params, move=move: move(params, u).logdet)
      assert not _doubles(jax.make_jaxpr(gradient)(params).jaxpr)


def test_jax_arrays_stay_jax_arrays(links):
  assert isinstance(observables.plaquette(jax.numpy.asarray(links)), jax.Array)
  traced = jax.jit(lambda beta: gauge.wilson(links, beta))
  np.testing.assert_allclose(traced(2.0), gauge.wilson(links, 2.0), rtol=1e-14)


def test_a_compiled_function_is_one_program_for_each_static_argument():
  traced = []

  @precision.compiled("power")
  def function(u, power=1):
    traced.append(power)
    return u**power

  u = np.full(3, 2.0)
  for _ in range(2):
    assert function(u).tolist() == [2.0] * 3 and function(u, power=3).tolist() == [8.0] * 3
  assert traced == [1, 3]
  # Under a trace it is part of the caller's program.
  assert "jit" not in str(jax.make_jaxpr(function)(u))


SQUARE = (4, 4)
FLOWS = {
  "trivializing": trivializing.make(trivializing.Config(order=1, steps=1), trivializing.pure_gauge(1.0, 2), 1, SQUARE),
  "layers": coupling.make(coupling.Config(layers=1, bins=2, net=conv.Config(hidden=(2,))), 1, SQUARE),
}


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_flows_follow_their_links(flow):
  z, params = np.asarray(fields.links(1, SQUARE)), jax.tree.map(np.float32, flow.init(jax.random.key(0)))
  model = marginal.make(priors.haar(1, SQUARE, z.dtype), flow)
  exact = flow.forward(params, z), model.log_prob(params, z)
  with jax.enable_x64(False):
    found = flow.forward(params, z), model.log_prob(params, z)
    rounded = flow.forward(params, z.astype(np.complex64))
  assert all(isinstance(x, np.ndarray | np.generic) for x in jax.tree.leaves(found))
  chex.assert_trees_all_equal_shapes_and_dtypes(found, exact)
  chex.assert_trees_all_close(found, exact, rtol=1e-12, atol=1e-12)
  assert rounded.point.dtype == np.complex64


def test_parameters_may_be_traced_where_links_are_numpys():
  flow, z = FLOWS["trivializing"], np.asarray(fields.links(1, SQUARE))
  slope = jax.grad(lambda params: flow.forward(params, z).logdet)(flow.init(jax.random.key(0)))
  assert isinstance(slope["deviation"], jax.Array)


CHAINS = {
  "hmc": hmc.make(gauge.action(1.0)),
  "heatbath": heatbath.make(1.0),
  "metropolis": metropolis.make(lambda key: None),
}


@pytest.mark.parametrize("kernel", CHAINS.values(), ids=CHAINS)
def test_chains_say_that_they_round(kernel, links, recwarn):
  start = lambda u: kernel.init(jax.random.key(0), u).u
  assert start(links).dtype == np.complex128
  with jax.enable_x64(False):
    assert start(links.astype(np.complex64)).dtype == np.complex64
    assert not recwarn
    with pytest.warns(UserWarning, match=r'jax.config.update\("jax_enable_x64", True\)'):
      assert start(links).dtype == np.complex64
