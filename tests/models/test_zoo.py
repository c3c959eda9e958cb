import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from experiments import presets, publish, sample
from flowqcd.analysis import weights
from flowqcd.models import marginal, priors, zoo
from flowqcd.theory import determinant, gauge


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_reaches_the_ess_of_its_card(name):
  model = zoo.load(name)
  card = model.card
  sampler = marginal.make(priors.haar(card.nc, card.lattice, jnp.complex64), model.flow())

  def log_w(key):
    drawn = sampler.sample(model.params, key)
    quarks = 2 * determinant.log_det(drawn.u, card.kappa, card.boundary) if card.kappa else 0.0
    return quarks - gauge.wilson(drawn.u, card.beta) - drawn.log_q

  keys = jax.random.split(jax.random.key(7), 48 if card.kappa else 96)  # Dense determinants take their time.
  found = np.asarray(jax.jit(lambda keys: jax.lax.map(log_w, keys, batch_size=8))(keys), np.float64)
  # 1 - ESS is about Var(log w), which so few samples have to a third or a fifth.
  assert 1 - weights.ess(found) < 2 * (1 - card.ess) + 1e-3
  assert model.flow((6, 4, 4, 4)[: len(card.lattice)]) is not None


def test_there_are_models():
  assert "su3-4d-beta2" in zoo.names()


def test_publish_and_read(tmp_path):
  base = presets.PRESETS["su3_4d"]
  config = dataclasses.replace(
    base,
    theory=dataclasses.replace(base.theory, lattice=(4, 4), boundary=(-1.0, 1.0)),
    flow=dataclasses.replace(base.flow, loops=("ababABAB",)),
    training=dataclasses.replace(base.training, num_steps=2, batch=64, num_evaluate=32),
    sampling=dataclasses.replace(base.sampling, num_samples=128, batch=64),
    output=str(tmp_path / "run"),
  )
  sample.run(config)
  model = publish.run(config)
  again = zoo.load(tmp_path / "run" / "model.safetensors")
  assert again.card == model.card
  np.testing.assert_array_equal(again.params["deviation"], model.params["deviation"])
  assert np.abs(again.params["deviation"]).max() > 0
  assert again.flow((5, 4)) is not None
  with pytest.raises(FileExistsError):
    publish.run(config)
  with pytest.raises(ValueError, match="has trained can be published"):
    publish.run(dataclasses.replace(presets.PRESETS["reproduce"], output=str(tmp_path / "other")))


def test_bad_files(tmp_path):
  with pytest.raises(ValueError, match="no model 'su3'; there are .*su3-4d-beta2"):
    zoo.load("su3")
  with pytest.raises(ValueError, match="no such file"):
    zoo.load(tmp_path / "none.safetensors")
  path = tmp_path / "damaged.safetensors"
  zoo.save(path, zoo.load("su3-4d-beta2"))
  with pytest.raises(FileExistsError):
    zoo.save(path, zoo.load("su3-4d-beta2"))
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(ValueError, match="damaged"):
    zoo.load(path)
  other = tmp_path / "other.safetensors"
  safetensors.numpy.save_file({"x": np.zeros(2)}, other)
  with pytest.raises(ValueError, match="no model of flowqcd"):
    zoo.load(other)
  for card in ("{}", "{", "[1]", '{"lattice": [4], "boundary": [1], "flow": [1]}'):
    safetensors.numpy.save_file({"x": np.zeros(2)}, other, metadata={"format": "flowqcd-trivializing-1", "card": card})
    with pytest.raises(ValueError, match="other.safetensors has no card"):
      zoo.load(other)
