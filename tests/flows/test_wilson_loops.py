import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkers import check_flow, laplacian
from fields import initial, links, normal

from flowqcd.flows import loop_action, trivializing, wilson_loops
from flowqcd.lattice import group, loops, sites
from flowqcd.training import continuity

SIX = ("aabAAB", "abAcBC", "abcABC")


@pytest.mark.parametrize(
  "shape, nd, number",
  [("abAB", 4, 6), ("aabAAB", 4, 12), ("abAcBC", 4, 48), ("abcABC", 4, 16), ("aabAAB", 2, 2), ("abcdABCD", 4, 24)],
)
def test_number_of_orientations(shape, nd, number):
  assert wilson_loops.count(shape, nd) == number
  rotated = shape[2:] + shape[:2]
  assert wilson_loops.orbit(rotated.translate(str.maketrans("abAB", "baBA")), nd) == wilson_loops.orbit(shape, nd)


def _walked(u, shape):
  """Every image of the path under permutations and reflections of the axes walked from every site, link by link."""
  nd, lattice = u.shape[0], u.shape[3:]
  letters = sorted(set(shape.lower()))
  images, total = 0, 0.0
  for directions in itertools.permutations(range(nd), len(letters)):
    for signs in itertools.product((1, -1), repeat=len(letters)):
      images += 1
      for start in np.ndindex(*lattice):
        at, product = list(start), np.eye(u.shape[1])
        for letter in shape:
          i = letters.index(letter.lower())
          mu, step = directions[i], signs[i] * (1 if letter.islower() else -1)
          if step < 0:
            at[mu] = (at[mu] - 1) % lattice[mu]
          link = u[(mu, slice(None), slice(None), *at)]
          product = product @ (link if step > 0 else link.conj().T)
          if step > 0:
            at[mu] = (at[mu] + 1) % lattice[mu]
        assert tuple(at) == start
        total += 2 * np.trace(product).real
  # Each loop has come as often as any other.
  return total * wilson_loops.count(shape, nd) / images


@pytest.mark.parametrize(
  "nc, lattice, shapes",
  [
    (1, (3, 4), ("aabAAB", "ababABAB")),
    (2, (4, 3, 3), ("abAcBC", "aabABcAC")),
    (3, (3, 3, 4), ("abcABC", "aabcAACB")),
    (3, (4, 5), ("aaabAAAB", "aabbAABB")),
  ],
)
def test_values_against_walking(nc, lattice, shapes):
  u = links(nc, lattice)
  found = jax.jit(lambda u: wilson_loops.values(sites.flatten(u), shapes, lattice))(u)
  np.testing.assert_allclose(found, [_walked(np.asarray(u), shape) for shape in shapes], rtol=1e-11, atol=1e-10)


def test_rectangles_are_those_of_the_lattice():
  u = links(3, (3, 3, 3, 4))
  pairs = itertools.permutations(range(4), 2)

  @jax.jit
  def both(u):
    brute = sum(2 * jnp.sum(jnp.einsum("ii...->...", loops.rectangle(u, mu, nu)).real) for mu, nu in pairs)
    return wilson_loops.values(sites.flatten(u), ("aabAAB",), (3, 3, 3, 4))[0], brute

  np.testing.assert_allclose(*both(u), rtol=1e-12)


@pytest.mark.parametrize(
  "nc, lattice, shapes", [(1, (3, 4), ("aabAAB",)), (2, (3, 3, 3), SIX), (3, (3, 3), ("aabAAB", "ababABAB"))]
)
def test_gradient_and_laplacian(nc, lattice, shapes):
  u = links(nc, lattice)
  v, c = sites.flatten(u), normal((len(shapes),))
  found = jax.jit(lambda v: wilson_loops.evaluate_shapes(v, shapes, lattice, c))(v)
  total = jax.jit(lambda v: c @ wilson_loops.values(v, shapes, lattice))
  brute = jax.jit(group.lie_derivative(lambda u: total(sites.flatten(u))))(u)
  np.testing.assert_allclose(found.gradient, np.reshape(brute, found.gradient.shape), atol=1e-12)
  second = laplacian(total, v)
  np.testing.assert_allclose(found.laplacian, second, rtol=2e-5)


def test_gradient_is_that_of_the_walk():
  """Against differences of the sum over walks, which shares nothing with the table of links."""
  u, shape = links(2, (3, 3, 3)), "abAcBC"
  found = wilson_loops.evaluate_shapes(sites.flatten(u), (shape,), (3, 3, 3), jnp.ones(1)).gradient
  coordinates = group.to_coordinates(found)
  t, h = group.basis(2), 1e-4
  for mu, a, site in ((0, 1, (2, 0, 1)), (2, 0, (1, 2, 2))):
    ends = []
    for e in (h, -h):
      moved = np.array(u)
      where = (mu, slice(None), slice(None), *site)
      moved[where] = (np.eye(2) * np.cos(e / 2) + 2 * np.sin(e / 2) * t[a]) @ moved[where]
      ends.append(_walked(moved, shape))
    flat = np.ravel_multi_index(site, (3, 3, 3))
    np.testing.assert_allclose(coordinates[mu, a, flat], (ends[0] - ends[1]) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("nc, lattice, loops_of", [(1, (3, 3, 3), ("aabAAB", "abcABC")), (3, (3, 3), ("ababABAB",))])
def test_flows_with_larger_loops(nc, lattice, loops_of):
  config = trivializing.Config(steps=12, degree=2, loops=loops_of)
  flow = trivializing.make(config, trivializing.pure_gauge(1.0, len(lattice)), nc, lattice)
  params = initial(flow, 0.5)
  assert params["deviation"].shape == (8 + len(lattice) + len(loops_of), 3)
  check_flow(flow, params, links(nc, lattice), round_trip=1e-4, jacobian=2e-4)


def test_without_coefficients_nothing_changes():
  lattice, u = (3, 4, 3), links(3, (3, 4, 3))
  target = trivializing.pure_gauge(1.0, 3)
  plain = trivializing.make(trivializing.Config(), target, 3, lattice)
  more = trivializing.make(trivializing.Config(loops=("abAcBC", "abcABC")), target, 3, lattice)
  a, b = (jax.jit(flow.forward)(initial(flow), u) for flow in (plain, more))
  np.testing.assert_allclose(a.point, b.point, atol=1e-14)
  np.testing.assert_allclose(a.logdet, b.logdet, rtol=1e-13)


def test_a_natural_unit_is_of_the_same_size_for_all():
  """Var(c_k W_k l C_F) over Haar links is about one, as loop_action has it for its own loops."""
  lattice, shapes = (4, 4, 4), ("aabAAB", "abcABC")
  scale = wilson_loops.natural_scale(shapes, 3, 3)
  fields = [sites.flatten(links(3, lattice, seed)) for seed in range(64)]
  evaluate = jax.jit(lambda v: wilson_loops.evaluate_shapes(v, shapes, lattice, jnp.asarray(scale)))
  w = np.array([evaluate(v).loops for v in fields])
  np.testing.assert_allclose((w * scale * 6 * group.casimir(3)).std(axis=0), 1, rtol=0.35)
  assert loop_action.natural_scale(3, 3).shape == (11,)


@pytest.mark.parametrize(
  "shapes, lattice, match",
  [
    (("aab",), (4, 4), "not closed"),
    (("aab AAB",), (4, 4), "is a word in"),
    (("acAC",), (4, 4, 4), "is a word in"),
    (("",), (4, 4), "is a word in"),
    (("abcABC",), (4, 4), "needs 3 directions"),
    (("abABabAB",), (4, 4), "passes a link twice"),
    (("aA",), (4, 4), "passes a link twice"),
    (("abABcC",), (4, 4, 4), "passes a link twice"),
    (("aaabAAAB",), (3, 4), "wider than the lattice"),
    (("abAB",), (4, 4), "already"),
    (("aabAAB", "abbABB"), (4, 4, 4), "already"),
    (("aabAAB",), (4, 4), "loops aabAAB make up W1"),
    (SIX, (4, 4, 4, 4), "loops aabAAB and abAcBC make up W1"),
    ("aabAAB", (4, 4), "a tuple of words"),
  ],
)
def test_bad_shapes_are_named(shapes, lattice, match):
  with pytest.raises(ValueError, match=match):
    wilson_loops.check(shapes, lattice)
  with pytest.raises(ValueError, match=match):
    trivializing.path(np.zeros((8 + len(shapes), 2)), lattice, shapes=shapes)


def test_loops_that_meet_themselves_are_never_evaluated():
  v = sites.flatten(links(2, (3, 4)))
  with pytest.raises(ValueError, match="wider than the lattice"):
    wilson_loops.evaluate_shapes(v, ("aaabAAAB",), (3, 4), jnp.ones(1))
  with pytest.raises(ValueError, match="wider than the lattice"):
    continuity.terms(links(2, (3, 4)), 1.0, ("aaabAAAB",))


@pytest.mark.parametrize("nc, lattice", [(3, (3, 4)), (2, (3, 4, 3))])
def test_rectangles_and_chairs_are_the_first_pairs(nc, lattice):
  v, nd = sites.flatten(links(nc, lattice)), len(lattice)
  pairs = loop_action.evaluate(v, lattice, jnp.zeros(8 + nd)).loops[1]
  np.testing.assert_allclose(pairs, wilson_loops.values(v, SIX[: nd - 1], lattice).sum(), rtol=1e-12)
  # Beside plaquettes alone they are nothing that is there.
  wilson_loops.check(SIX[: nd - 1], lattice, beside_pairs=False)
