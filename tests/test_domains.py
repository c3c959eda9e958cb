"""One lattice over several devices: the numbers of one device, and nothing moves but halos and sums."""

import math
import pathlib

import fields
import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
import snippets

from flowqcd import distributed, domains, presets
from flowqcd.lattice import fusion, group, loops, precision, sites
from flowqcd.mcmc import heatbath, hmc, link_flow
from flowqcd.runs import conditionals, marginals, session, tree
from flowqcd.theory import gauge, observables, pseudofermion, wilson_flow

KEY = jax.random.key_data(jax.random.key(5))


def _kernel(make):
  return lambda lattice: lambda u, key: _moved(make(), u, key)


def _moved(kernel, u, key):
  state, info = kernel.step(key, hmc.State(u))
  return state.u, info


def _quarks(mass=0.0):
  parts = pseudofermion.hasenbusch(0.12, mass) if mass else (pseudofermion.even_odd(0.12),)
  return hmc.make(gauge.total(gauge.action(2.0), *parts), steps=2)


def _reproduce(lattice):
  changes = {"theory.lattice": ",".join(map(str, lattice)), "precision": "single"}
  if len(lattice) == 2:
    changes |= {"theory.nc": "1", "theory.boundary": "-1,1"}
  return tree.override(presets.PRESETS["reproduce"], changes, "")


def _flow(lattice):
  config = _reproduce(lattice)
  model = marginals.model(config.links, config.theory, jnp.dtype("complex64"))
  params = session.in_precision(model.init(jax.random.key(0)), jnp.dtype("complex64"))
  return lambda u, key: model.sample(params, key)[:2]


def _draw(lattice):
  config = _reproduce(lattice)
  model = conditionals.model(config.conditional, config.theory, "single")
  params = session.in_precision(model.init(jax.random.key(0)), jnp.dtype("complex64"))
  return lambda u, key: tuple(model.draw(params, u, key)[1:])


def _observables(u, key):
  loop = [observables.polyakov_loop(u, mu) for mu in range(len(u))]
  return observables.plaquette(u), observables.topological_charge(u), observables.energy_density(u), loop


PATHS = {
  "gauge hmc": _kernel(lambda: hmc.make(gauge.action(2.0, c1=gauge.IWASAKI), steps=2)),
  "quark hmc": _kernel(_quarks),
  "Hasenbusch hmc": _kernel(lambda: _quarks(0.3)),
  "heat bath": _kernel(lambda: heatbath.make(2.0, 1)),
  "link flow": _kernel(lambda: link_flow.make(5.7, 1)),
  "Wilson flow": lambda lattice: lambda u, key: wilson_flow.adaptive(u, 0.5),
  "observables": lambda lattice: _observables,
  "pion": lambda lattice: lambda u, key: observables.pion_correlator(u, 0.12, source=(3,) + (1,) * (len(lattice) - 1)),
  "trivializing sample": _flow,
  "hopping draw": _draw,
}
FAST = [(name, 1, (8, 4)) for name in PATHS if name != "link flow"] + [("heat bath", 2, (8, 4))]
FOUR = (8, 4, 4, 4)
CASES = FAST + [programs.slow(name, 3, FOUR) for name in PATHS]


@pytest.mark.parametrize("name, nc, lattice", CASES)
@pytest.mark.parametrize("time", [4, programs.slow(2)])
def test_split_lattices(name, nc, lattice, time):
  # Sweeps multiply what is rounded by ten thousand.
  dtype = "complex128" if name in ("heat bath", "link flow") else "complex64"
  function, u = PATHS[name](lattice), jnp.asarray(fields.links(nc, lattice), dtype)
  alone = jax.jit(function)(u, KEY)
  with jax.set_mesh(domains.mesh(time)):
    u = domains.place(u)
    program = jax.jit(function).lower(u, KEY).compile()
    split = program(u, KEY)
  for ours, theirs in zip(jax.tree.leaves(split), jax.tree.leaves(alone), strict=True):
    # dH is a small difference: rounding of the trajectory in single precision.
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)
  # A slice of all links, of a flow's forces two deep, or of the half spinors of a point's sources; sums are over sites.
  components, slice_of_time = len(lattice) * nc * nc, math.prod(lattice[1:])
  sources = (2 ** (len(lattice) // 2) * nc) ** 2 // 2
  largest = {"collective-permute": max(2 * components, sources) * slice_of_time}
  largest["all-reduce"] = max(components * slice_of_time, 48)
  found = programs.collectives(program.as_text())
  assert all(size <= largest.get(kind, 0) for kind, size in found), found
  assert any(kind == "collective-permute" for kind, _ in found)


def test_a_force_moves_two_halos():
  u = jax.ShapeDtypeStruct((4, 3, 3, 8, 4, 4, 4), jnp.complex64)
  with jax.set_mesh(domains.mesh(4)):
    place = jax.sharding.NamedSharding(jax.sharding.get_mesh(), jax.P(None, None, None, domains.TIME))
    force = jax.jit(lambda u: gauge.wilson_force(u, 1.0), in_shardings=place, out_shardings=place)
    compiled = force.lower(u).compile()
  # Links from the slice above, for plaquettes, and what the planes in time add to links there: of three directions.
  matrices = 9 * 4**3
  assert sorted(programs.collectives(compiled.as_text())) == [
    ("collective-permute", 3 * matrices),
    ("collective-permute", 4 * matrices),
  ]
  alone = jax.jit(lambda u: gauge.wilson_force(u, 1.0)).lower(u).compile()
  memory = [program.memory_analysis().temp_size_in_bytes for program in (compiled, alone)]
  assert memory[0] < 0.4 * memory[1]  # A quarter, and halos.


def test_the_page_on_clusters():
  (example,) = snippets.blocks((pathlib.Path(__file__).parents[1] / "docs" / "clusters.md").read_text())
  names = {}
  exec(example, names)
  u = names["state"].u
  assert u.sharding.spec == jax.P(None, None, None, domains.TIME) and group.violation(sites.flatten(u)) < 1e-5


def test_gradients_pass_the_barrier():
  x = jnp.arange(16.0).reshape(2, 8)
  f = lambda x: jnp.sum(fusion.materialise(x) ** 3)
  with jax.set_mesh(domains.mesh(4)):
    np.testing.assert_allclose(jax.jit(jax.grad(f))(x), 3 * x**2)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(f)))(x[None])[0], 3 * x**2)
    assert float(jax.jit(precision.pairwise_sum)(x)) == 120


def test_sums_are_within_pieces_first():
  x = jnp.arange(3 * 1024.0).reshape(3, 1024)
  with jax.set_mesh(domains.mesh(4)):
    place = jax.sharding.NamedSharding(jax.sharding.get_mesh(), jax.P(None, domains.TIME))
    program = jax.jit(precision.pairwise_sum, in_shardings=place).lower(x).compile()
    assert float(program(jax.device_put(x, place))) == float(jnp.sum(x))
  assert {kind for kind, _ in programs.collectives(program.as_text())} == {"all-reduce"}


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 7])
def test_lines_by_twos(length):
  u = fields.links(3, (length, 3))
  line = jnp.eye(3)[..., None]
  for t in range(length):
    line = jnp.einsum("ijv,jkv->ikv", line, u[0, :, :, t])
  np.testing.assert_allclose(loops.polyakov_line(u, 0), line, atol=1e-13)
  winding = sites.unflatten(loops.winding_line(sites.flatten(u), (length, 3), 0), (length, 3))
  np.testing.assert_allclose(winding[:, :, 0], line, atol=1e-13)
  np.testing.assert_allclose(np.trace(winding), np.broadcast_to(np.trace(line), (length, 3)), atol=1e-13)


@pytest.fixture
def split_lattices():
  yield distributed.split_lattices
  distributed.split_lattices(1)


def test_items_and_lattices_share_the_devices(split_lattices):
  u = np.stack([fields.links(1, (8, 4), seed) for seed in range(5)])  # Three turns of two rows, one item filled up.
  kernel = heatbath.make(1.3)
  keys = distributed.item_keys(jax.random.key(1), 0, 0, 5)
  advance = lambda beta, u, key: (_moved(kernel, u, key)[0], beta * observables.plaquette(u))
  found = []
  for devices in (1, 2, 4):
    split_lattices(devices)
    assert distributed.places() == 4 // devices
    found.append(distributed.parallel_map(advance, 2, num_shared=1)(2.0, u, keys))
    assert all(type(x) is np.ndarray for x in found[-1])
  for other in found[1:]:
    for ours, theirs in zip(other, found[0]):
      np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_what_cannot_be_split_is_named(split_lattices):
  with pytest.raises(ValueError, match="4 devices cannot be shared out to lattices over 3"):
    split_lattices(3)
  with pytest.raises(ValueError, match="no mesh with a time axis"):
    domains.place(fields.links(1, (4, 4)))
  with jax.set_mesh(domains.mesh(4)), pytest.raises(ValueError, match="6 time slices cannot be shared out to 4"):
    domains.place(fields.links(1, (6, 4)))
  with pytest.raises(ValueError, match="lattice_devices must divide the 4 time slices of theory.lattice, not 3"):
    tree.override(presets.PRESETS["reproduce"], {"lattice_devices": "3"}, "")
