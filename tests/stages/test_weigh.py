"""`weigh`: the weights of files that a flow has drawn are those it gave them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fields import DATA, initial, links

from flowqcd.flows import trivializing
from flowqcd.io import ildg
from flowqcd.io.files import NoExtentsError, OtherExtentsError
from flowqcd.models import marginal, priors, zoo
from flowqcd.runs import session
from flowqcd.stages import weigh
from flowqcd.theory import determinant, observables

LATTICE = (4, 6)
BOUNDARY = (-1.0, 1.0)


def _model(path):
  """A flow for U(1) with two flavours in two dimensions, as a file."""
  config = trivializing.Config(degree=1, steps=4)
  target = trivializing.two_flavours(1.5, 0.15, 1, LATTICE, BOUNDARY)
  params = initial(trivializing.make(config, target, 1, LATTICE))
  card = zoo.Card("small", 1, LATTICE, 1.5, 0.15, BOUNDARY, dataclasses.asdict(config), 0.5, 0.1, 10, 1.0)
  zoo.save(path, zoo.Model(card, params))
  return zoo.load(path)


def test_weights_are_those_of_the_samples(tmp_path, capsys):
  model = _model(tmp_path / "a.safetensors")
  flow = marginal.make(priors.haar(1, LATTICE, jnp.complex128), model.flow())
  params = session.in_precision(model.params, jnp.dtype("complex128"))
  u, log_q = jax.device_get(jax.jit(jax.vmap(flow.sample, (None, 0)))(params, jax.random.split(jax.random.key(1), 5)))
  paths = [str(tmp_path / f"{i}.ildg") for i in range(5)]
  for path, one in zip(paths, u):
    ildg.write(path, one)
  rows = weigh.run(weigh.Plan(model=str(tmp_path / "a.safetensors"), json=True, chunk=1), paths)
  assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
  assert [row["file"] for row in rows] == paths
  for row, one, q in zip(rows, u, log_q):
    # V plaquettes, and S = -beta times the sum of Re tr P; two flavours are |det D|^2.
    action = -1.5 * np.prod(LATTICE) * float(observables.mean_plaquette(one))
    quarks = 2 * float(determinant.log_det(one, 0.15, BOUNDARY))
    assert row["closure"] < 0.01
    assert row["log_q"] == pytest.approx(q, abs=0.01)
    assert row["log_w"] == pytest.approx(quarks - action - row["log_q"], abs=1e-9)
  assert np.ptp(log_q) > 1


def test_what_does_not_fit_the_model_is_named(tmp_path):
  path = str(DATA / "numpy" / "rand_2222.nersc")
  with pytest.raises(ValueError, match="--model=NAME; there are paper-conditional"):
    weigh.run(weigh.Plan(), [path])
  with pytest.raises(ValueError, match="pseudofermions"):
    weigh.run(weigh.Plan(model="paper-conditional"), [path])
  ildg.write(tmp_path / "a", np.asarray(links(1, (4, 4))))
  with pytest.raises(ValueError, match="a has 1 colours in 2 dimensions, the model 3 in 4"):
    weigh.run(weigh.Plan(model="su3-4d-beta2"), [str(tmp_path / "a")])


def test_bare_data_need_extents_and_files_must_have_those_given():
  path = str(DATA / "other-codes" / "julia_bare_record.ildg")
  with pytest.raises(NoExtentsError, match="bare_record.ildg.* say --extents=T,X,Y,Z"):
    weigh.run(weigh.Plan(model="su3-4d-beta2"), [path])
  with pytest.raises(OtherExtentsError, match=r"no field on a lattice \(4, 4\)"):
    weigh.run(weigh.Plan(model="su3-4d-beta2", extents=(4, 4)), [path])


def test_quarks_are_those_of_the_card():
  card = zoo.load("su3-4d-beta1-kappa012").card
  theory = weigh.theory_of(card, 3, (8, 4, 4, 4), "a")
  assert (theory.beta, theory.kappa, theory.num_flavours, theory.lattice) == (1.0, 0.12, 2, (8, 4, 4, 4))
  assert theory.boundary == card.boundary
  assert weigh.theory_of(zoo.load("su3-4d-beta2").card, 3, (4, 4, 4, 4), "a").num_flavours == 0
