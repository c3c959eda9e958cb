import re

import numpy as np
import oracles
import pytest
from fields import DATA

from flowqcd.theory import torus


@pytest.mark.parametrize("nc", [1, 2, 3])
@pytest.mark.parametrize("beta", [0.3, 2.0, 5.0])
@pytest.mark.parametrize("volume", [4, 16, 64])
def test_plaquette_by_another_route(nc, beta, volume):
  """Bessel determinants and a complex step against Weyl integrals and analytic derivatives."""
  assert torus.exact(nc, beta, volume).plaquette == pytest.approx(oracles.plaquette_2d(nc, beta, volume), rel=1e-9)


@pytest.mark.parametrize("nc", [1, 2, 3])
def test_log_z(nc):
  """Against the integral of the plaquette over beta, from ln Z = 0 at beta = 0."""
  nodes, weights = np.polynomial.legendre.leggauss(12)
  beta, volume = 3.0, 16
  points = beta * (nodes + 1) / 2
  integral = volume * beta / 2 * sum(w * oracles.plaquette_2d(nc, b, volume) for b, w in zip(points, weights))
  assert torus.exact(nc, beta, volume).log_z == pytest.approx(integral, rel=1e-8)


def test_against_the_table():
  """Values of an independent code, checked by brute force on one plaquette."""
  nc, found = None, 0
  for line in (DATA / "numpy" / "exact_2d_plaquettes.txt").read_text().splitlines():
    if re.fullmatch(r"\w+", line):  # A heading; other observables are left out.
      nc = {"U1": 1, "SU2": 2, "SU3": 3}.get(line)
    entry = re.fullmatch(r"\s*L(\d+)_b([\d.]+)\s+([\d.e+-]+)", line)
    if nc and entry:
      size, beta, value = int(entry[1]), float(entry[2]), float(entry[3])
      assert torus.exact(nc, beta, size**2).plaquette == pytest.approx(value, rel=1e-9), line
      found += 1
  assert found == 48


@pytest.mark.parametrize("nc, beta", [(4, 1.0), (2, 0.0), (3, 100.0)])
def test_what_is_not_covered_is_named(nc, beta):
  with pytest.raises(ValueError, match="Nc = 1, 2, 3"):
    torus.exact(nc, beta, 4)


@pytest.mark.parametrize("nc", [1, 2, 3])
def test_one_plaquette(nc):
  """The trivial representation's coefficient, by Weyl's integral."""
  c, slope, _ = max((x for x in oracles._coefficients(nc, 2.0, 48) if x[2] == 1), key=lambda x: x[0])
  log_z, plaquette = torus.one_plaquette(nc, 2.0)
  assert log_z == pytest.approx(np.log(c), rel=1e-9) and plaquette == pytest.approx(slope / c, rel=1e-9)


@pytest.mark.parametrize("nc", [1, 2, 3])
def test_variance_is_the_slope_of_the_plaquette(nc):
  h = 1e-4
  slope = (oracles.plaquette_2d(nc, 2.0 + h, 16) - oracles.plaquette_2d(nc, 2.0 - h, 16)) / (2 * h)
  assert torus.plaquette_variance(nc, 2.0, 16) == pytest.approx(slope / 16, rel=1e-6)


def test_charge_squared():
  """V/12 of independent angles, and three plaquettes sampled at beta = 1."""
  assert torus.charge_squared(1e-9, 16) == pytest.approx(16 / 12, rel=1e-6)
  angles = np.random.default_rng(0).vonmises(0, 1.0, (400_000, 2)).sum(axis=1)
  last = np.mod(np.pi - angles, 2 * np.pi) - np.pi
  squares, w = ((angles + last) / (2 * np.pi)) ** 2, np.exp(np.cos(last))
  found = np.average(squares, weights=w)
  error = np.sqrt(np.sum((w * (squares - found)) ** 2)) / w.sum()
  assert abs(torus.charge_squared(1.0, 3) - found) < 4 * error < 0.002
  with pytest.raises(ValueError, match="Nc = 1, 2, 3"):
    torus.charge_squared(0.0, 4)
  with pytest.raises(ValueError, match="at least 3 plaquettes, not 2"):
    torus.charge_squared(1.0, 2)
