import numpy as np
import pytest

from flowqcd.flows import masks
from flowqcd.lattice import loops

LATTICES = pytest.mark.parametrize("lattice", [(4, 4), (8, 4), (4, 4, 8), (4, 4, 4, 4), (8, 4, 4, 12)])


@LATTICES
def test_a_sweep_updates_every_link_once(lattice):
  nd = len(lattice)
  for turn in range(1, nd):
    configs = masks.sweep(nd, turn=turn)
    assert len(configs) == 4 * nd
    stacked = masks.stack(configs, lattice)
    np.testing.assert_array_equal(stacked.active.sum(axis=0), 1)


@LATTICES
def test_every_plaquette_is_active_from_two_of_its_links(lattice):
  nd = len(lattice)
  count = np.zeros((nd * (nd - 1) // 2, np.prod(lattice)), int)
  for config in masks.layers(4 * nd * (nd - 1), nd):
    m = masks.make(config, lattice)
    count[m.plane, m.sites] += 1
  np.testing.assert_array_equal(count, 2)


def test_width_two_is_a_checkerboard():
  for config in masks.layers(24, 4, 2):
    m = masks.make(config, (2, 2, 2, 2))
    assert config.shifts == (1, 1, 1, 1) and len(m.sites) == 8
    assert set(np.indices((2,) * 4).sum(axis=0).ravel()[m.sites] % 2) == {config.active_phase}


@LATTICES
def test_no_plaquette_holds_two_active_links(lattice):
  for config in masks.layers(4 * len(lattice) * (len(lattice) - 1), len(lattice)):
    m = masks.make(config, lattice)
    for i, (a, b) in enumerate(loops.planes(len(lattice))):
      sides = [m.active[a], np.roll(m.active[a], -1, b), m.active[b], np.roll(m.active[b], -1, a)]
      count = np.sum(sides, axis=0)
      assert count.max() <= 1
      np.testing.assert_array_equal(m.frozen[i], count == 0)
      share = 0.5 if config.orientations[0] in (a, b) else 1.0
      assert m.frozen[i].mean() == share


def test_the_papers_numbers():
  m = masks.make(masks.Config((0, 1, 2, 3), (1, 2, 1, 1), 4, 0), (4, 4, 4, 4))
  assert m.active.sum() == 64 and len(m.sites) == 64 and not m.active[1:].any()
  assert len(masks.layers(48, 4)) == 48
  assert len(set(masks.layers(48, 4))) == 48 and masks.layers(96, 4)[48:] == masks.layers(48, 4)


def test_stripes_in_two_dimensions():
  m = masks.make(masks.Config((0, 1), (1, 2), 4, 0), (4, 4))
  expected = [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
  np.testing.assert_array_equal(m.active[0], expected)


@LATTICES
def test_the_active_plaquette_starts_with_the_link(lattice):
  for config in masks.layers(4 * len(lattice) * (len(lattice) - 1), len(lattice)):
    m = masks.make(config, lattice)
    mu, nu = config.orientations[:2]
    assert loops.planes(len(lattice))[m.plane] == (min(mu, nu), max(mu, nu))
    assert bool(m.flipped) == (mu > nu) and m.direction == mu
    np.testing.assert_array_equal(np.flatnonzero(m.active[mu]), m.sites)


@pytest.mark.parametrize("config, lattice, words", [
  (masks.Config((0, 1), (1, 2), 4, 0), (6, 4), "extent 6 of direction 0"),
  (masks.Config((0, 1), (1, 4), 4, 0), (4, 4), "multiple of the width"),
  (masks.Config((0, 0), (1, 2), 4, 0), (4, 4), "each direction once"),
  (masks.Config((0, 1), (1,), 4, 0), (4, 4), "one shift for each"),
  (masks.Config((0, 1), (1, 2), 4, 4), (4, 4), "active_phase"),
  (masks.Config((0, 1), (2, 1), 4, 0), (4, 4), "no factor in common"),
])  # fmt: skip
def test_what_does_not_fit_is_named(config, lattice, words):
  with pytest.raises(masks.MaskError, match=words):
    masks.make(config, lattice)
