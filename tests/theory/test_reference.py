"""Against numbers of other codes: tmLQCD, and a dense NumPy implementation (tests/data/README.md)."""

import jax
import numpy as np
import pytest
from fields import DATA, fixture_links, fixtures, time_first, tmlqcd
from programs import slow

from flowqcd.theory import determinant, observables, wilson_flow

VALUES = {
  "0000": {
    "plaquette": 0.056279029829090,
    "polyakov": 0.083031203425702 + 0.033559287278362j,
    "log_det": (0.482565550749, 0.270012910742),
    "pion": [5.443318364633e-01, 1.293383201704e-02, 1.141461063148e-03, 1.266513104961e-02],
  },
  "0001": {
    "plaquette": 0.068365405998129,
    "polyakov": 0.005429130835247 - 0.045825418293007j,
    "log_det": (0.457059615831, 0.442437874119),
    "pion": [5.454281063468e-01, 1.214290036379e-02, 1.083182839314e-03, 1.293107582533e-02],
  },
}


@pytest.mark.parametrize("number", list(VALUES))
def test_tmlqcd_observables(number):
  u, expected = tmlqcd(number), VALUES[number]
  assert float(observables.mean_plaquette(u)) == pytest.approx(expected["plaquette"], abs=1e-14)
  assert float(observables.plaquette(u)) == pytest.approx(6 * expected["plaquette"], abs=1e-13)
  np.testing.assert_allclose(observables.polyakov_loop(u) / 3, expected["polyakov"], atol=1e-13)
  antiperiodic, periodic = expected["log_det"]
  np.testing.assert_allclose(determinant.log_det(u, 0.1), antiperiodic, atol=1e-11)
  np.testing.assert_allclose(determinant.log_det(u, 0.1, (1, 1, 1, 1)), periodic, atol=1e-11)
  pion = observables.pion_correlator(u, 0.1)
  np.testing.assert_allclose(0.2**2 * pion, expected["pion"], rtol=1e-9)


@pytest.mark.parametrize("number", list(VALUES))
def test_tmlqcd_wilson_flow(number):
  table = np.loadtxt(DATA / "tmlqcd" / f"gradflow.{number}.txt")
  u, done = tmlqcd(number), 0
  for row in (0, 1, 37, 100, 402):
    u, done = wilson_flow.flow(u, 0.01 * (row - done)), row
    _, plaquette, _, energy, charge = table[row]
    np.testing.assert_allclose(observables.mean_plaquette(u), plaquette, atol=1e-12)
    np.testing.assert_allclose(observables.energy_density(u), energy, atol=1e-12)
    np.testing.assert_allclose(observables.topological_charge(u), charge, atol=1e-12)


@pytest.mark.parametrize("entry", fixtures(), ids=lambda e: e["name"])
def test_numpy_fixtures(entry):
  u, nd = fixture_links(entry), len(entry["dims"])
  assert u.shape[3:] == time_first(entry["dims"], nd)
  kappa, boundary = entry["kappa"], time_first(entry["bc"], nd)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
  close(observables.mean_plaquette(u), entry["plaquette"])
  log_det = determinant.log_det(u, kappa, boundary)
  close(log_det, entry["logdet"])
  close(observables.pion_correlator(u, kappa, boundary), entry["pion"])
  if "logdet_eo" in entry:
    close(log_det, entry["logdet_eo"])
  if "Q_clover" in entry:
    # There eps_{xyzt} = +1, here eps_{txyz} = +1.
    close(-observables.topological_charge(u), entry["Q_clover"])
    close(observables.energy_density(u), entry["E_clover"])
  if "polyakov_re_im" in entry:
    # Directions x, y, z, t there.
    found = [observables.polyakov_loop(u, mu) for mu in (1, 2, 3, 0)]
    close(np.stack([np.real(found), np.imag(found)], axis=1), entry["polyakov_re_im"])


@pytest.mark.parametrize("entry", [
  # 3,072 rows on the lattice of the paper, and twice ten seconds.
  slow(e) if e["dims"] == [4, 4, 4, 4] else e for e in fixtures() if "logdet_reg" in e
], ids=lambda e: e["name"])  # fmt: skip
def test_regulated_determinants_of_fixtures(entry):
  u, boundary = fixture_links(entry), time_first(entry["bc"], len(entry["dims"]))
  for mu0, value in entry["logdet_reg"].items():
    found = determinant.log_det_regulated(u, entry["kappa"], boundary, float(mu0))
    np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-11)


def test_fixture_of_the_flow_at_a_coarse_step():
  entry = next(e for e in fixtures() if "flow_t0p5_eps0p05" in e)
  expected = entry["flow_t0p5_eps0p05"]
  flowed = wilson_flow.flow(fixture_links(entry), 0.5, 0.05)
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12)
  close(observables.mean_plaquette(flowed), expected["plaquette"])
  close(observables.energy_density(flowed), expected["E_clover"])
  close(-observables.topological_charge(flowed), expected["Q_clover"])


def test_numpy_input_is_computed_in_its_own_precision_without_the_switch():
  u = tmlqcd("0000")
  with jax.enable_x64(False):
    assert abs(float(observables.mean_plaquette(u)) - VALUES["0000"]["plaquette"]) < 1e-14
    assert observables.mean_plaquette(u.astype(np.complex64)).dtype == np.float32
    assert wilson_flow.flow(u, 0.02).dtype == np.complex128
    charge = float(observables.topological_charge(u))
  assert charge == pytest.approx(1.2876394469330088e-01, abs=1e-13)
