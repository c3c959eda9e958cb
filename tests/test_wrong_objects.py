"""Errors for what is no action, state, link or coupling: each names what was given and what would be right."""

import fields
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd.flows import hopping, ptcn, trivializing
from flowqcd.lattice import sites
from flowqcd.mcmc import flowed, heatbath, hmc, link_flow, metropolis
from flowqcd.models import conditional
from flowqcd.theory import determinant, gauge, observables, pseudofermion, wilson_flow
from flowqcd.types import Flow

KERNELS = {
  "hmc": hmc.make(gauge.action(1.0)),
  "heatbath": heatbath.make(1.0),
  "link_flow": link_flow.make(1.0),
  "metropolis": metropolis.make(lambda key: None),
}
KEY = jax.random.key(0)
FLOW = Flow(lambda key: (), lambda params, z: None, lambda params, z: None)


@pytest.fixture(scope="module")
def links():
  return fields.haar_in_numpy((4, 4, 4, 4))


@pytest.mark.parametrize("make", [hmc.make, lambda action: flowed.action(action, FLOW, ()), gauge.total])
def test_no_action(make):
  with pytest.raises(TypeError, match="not a function: .* gauge.from_function"):
    make(lambda u: 0.0)
  with pytest.raises(TypeError, match=r"not a list: .* gauge.total\(first, second\)"):
    make([gauge.action(1.0)])
  with pytest.raises(TypeError, match="an Action is needed, not a float"):
    make(1.0)


def test_a_sum_of_nothing():
  with pytest.raises(TypeError, match="at least one Action"):
    gauge.total()


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_no_state(kernel, links):
  with pytest.raises(TypeError, match=r"init\(key, u\) makes of links u, not from an array \(4, 3, 3, 4, 4, 4, 4\)"):
    kernel.step(KEY, links)
  with pytest.raises(TypeError, match="not from all of the KernelStep"):
    kernel.step(KEY, hmc.KernelStep(hmc.State(links), None))


@pytest.mark.parametrize("name", ["hmc", "heatbath", "link_flow"])
def test_chains_start_from_links(name, links):
  with pytest.raises(TypeError, match="links are complex matrices, not float64"):
    KERNELS[name].init(KEY, links.real)
  with pytest.raises(sites.ShapeError, match="sites.from_sites_first"):
    KERNELS[name].init(KEY, np.asarray(sites.to_sites_first(links)))


TAKE_LINKS = {
  "plaquette": observables.plaquette,
  "wilson": lambda u: gauge.wilson(u, 1.0),
  "wilson_flow": lambda u: wilson_flow.flow(u, 0.1),
  "log_det": lambda u: determinant.log_det(u, 0.1),
}


@pytest.mark.parametrize("function", TAKE_LINKS.values(), ids=TAKE_LINKS)
def test_links_with_their_sites_first(function, links):
  with pytest.raises(sites.ShapeError, match=r"\(4, 4, 4, 4, 4, 3, 3\) .*sites.from_sites_first"):
    function(np.moveaxis(links, (0, 1, 2), (-3, -2, -1)))


@pytest.mark.parametrize("function", TAKE_LINKS.values(), ids=TAKE_LINKS)
def test_real_links(function, links):
  with pytest.raises(TypeError, match="not float64"):
    function(links.real)


def test_shapes_that_fit_both_ways():
  """SU(2) on 2^2 has one shape in both layouts: what decides is which matrices are unitary."""
  u = fields.links(2, (2, 2))
  assert sites.extents(u) == (2, 2)
  with pytest.raises(sites.ShapeError, match="on the last"):
    sites.extents(jnp.moveaxis(u, (0, 1, 2), (-3, -2, -1)))


def test_a_shape_that_is_clear_says_what_to_do():
  with pytest.raises(sites.ShapeError, match=r"\(8, 6, 2, 3, 3\); links with their sites first"):
    sites.extents(np.zeros((8, 6, 2, 3, 3), complex))


BOUNDARIES = {
  "two_flavours": lambda b: trivializing.two_flavours(1.0, 0.1, 3, (4, 4, 4, 4), b),
  "ptcn": lambda b: ptcn.full(ptcn.Config(layers=1), 3, (4, 4, 4, 4), b),
  "hopping": lambda b: hopping.odd(hopping.Config(), 0.1, (4, 4, 4, 4), b),
  "log_det": lambda b: determinant.log_det(fields.links(1, (4, 4, 4, 4)), 0.1, b),
}


@pytest.mark.parametrize("make", BOUNDARIES.values(), ids=BOUNDARIES)
@pytest.mark.parametrize("boundary", [(-1, 1), (-1, 1, 1, 1, 1), -1])
def test_boundaries_of_another_dimension(make, boundary):
  with pytest.raises(
    ValueError,
    match=f"4 boundary phases are needed, one per direction, not {boundary}".replace("(", r"\(").replace(")", r"\)"),
  ):
    make(boundary)


COUPLINGS = {
  "action": gauge.action,
  "lines": lambda x: gauge.action(1.0, (x, 0.0)),
  "even_odd": pseudofermion.even_odd,
  "plain": pseudofermion.plain,
  "hasenbusch": lambda x: pseudofermion.hasenbusch(x, 0.1),
  "pure_gauge": lambda x: trivializing.pure_gauge(x, 4),
  "two_flavours": lambda x: trivializing.two_flavours(1.0, x, 3, (4, 4), None),
  "heatbath": heatbath.make,
  "link_flow": link_flow.make,
  "tau": lambda x: hmc.make(gauge.action(1.0), tau=x),
}


@pytest.mark.parametrize("make", COUPLINGS.values(), ids=COUPLINGS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_couplings_that_are_no_numbers(make, value):
  with pytest.raises(ValueError, match=str(value)):
    make(value)


def test_traced_couplings_are_left_alone():
  assert jax.jit(lambda beta: gauge.action(beta).value(fields.links(1, (2, 2)), ()))(jnp.nan).shape == ()


def test_parameters_of_another_number_of_factors(links):
  action = pseudofermion.even_odd(0.1)
  model = conditional.make([conditional.Factor(hopping.odd(hopping.Config(), 0.1, (4, 4, 4, 4)), action, 2)])
  with pytest.raises(ValueError, match="a model of 1 factors needs parameters for each, not for 0"):
    model.at((), links)
