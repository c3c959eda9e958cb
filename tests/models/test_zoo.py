import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from fields import links, normal

from flowqcd import commands, distributed, presets
from flowqcd.analysis import weights
from flowqcd.models import joint, zoo
from flowqcd.theory import determinant, gauge

_MADE = {
  "su3-4d-beta2": (-217.06366, -406.19653),
  "su3-4d-beta1-kappa010": (-54.843143, -99.752808),
  "paper-marginal": (-53.875244, -97.400345),
}
"""ln |det| and gauge action of what a model makes of links(3, (4, 4, 4, 4), 1, complex64). Its rounding is 3e-6 of them."""


@pytest.mark.parametrize("name", _MADE)
def test_models_make_of_links_what_they_made_when_their_ess_was_measured(name):
  """Parameters are what they were, or would not be loaded; so this says what the code makes of them."""
  model = zoo.load(name)
  end = jax.jit(model.flow().forward)(model.params, links(3, (4, 4, 4, 4), 1, jnp.complex64))
  found = end.logdet, gauge.wilson(end.point, model.card.beta)
  np.testing.assert_allclose(found, _MADE[name], rtol=5e-5)
  assert model.flow((8, 4, 4, 4)) is not None


_LOG_Q = -3570.4304


def test_the_papers_conditional_model_has_the_density_it_had():
  model = zoo.load("paper-conditional")
  u, phi = links(3, (4, 4, 4, 4), 1, jnp.complex64), normal((4, 3, 256), jnp.complex64)
  found = jax.jit(model.conditional().log_prob)(model.params, u, (phi,))
  np.testing.assert_allclose(found, _LOG_Q, rtol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.load(name).card.kind == "trivializing"])
def test_every_model_reaches_the_ess_of_its_card(name):
  model = zoo.load(name)
  card = model.card
  sampler = model.marginal()

  def log_w(key):
    drawn = sampler.sample(model.params, key)
    if not card.kappa:
      return -gauge.wilson(drawn.u, card.beta) - drawn.log_q
    # Dense determinants take their time; in single precision they are right to 1e-4.
    quarks = 2 * determinant.log_det(drawn.u.astype(jnp.complex64), card.kappa, card.boundary)
    return quarks - gauge.wilson(drawn.u, card.beta) - drawn.log_q

  keys = jax.random.split(jax.random.key(7), 32 if card.kappa else 96)
  run = jax.jit(lambda keys: jax.lax.map(log_w, keys, batch_size=8))
  found = np.asarray(run(keys), np.float64)
  # 1 - ESS is about Var(log w), which so few samples have to a third or a fifth.
  assert 1 - weights.ess(found) < 2 * (1 - card.ess) + 1e-3
  assert model.flow((6, 4, 4, 4)[: len(card.lattice)]) is not None


def test_there_are_models():
  assert {"su3-4d-beta2", "paper-marginal", "paper-conditional"} <= set(zoo.names())


@pytest.mark.parametrize("name, size", [("paper-marginal", 5_899_200), ("paper-conditional", 605_564)])
def test_the_papers_networks_have_their_size(name, size):
  assert sum(np.size(x) for x in jax.tree.leaves(zoo.load(name).params)) == size


@pytest.mark.slow
def test_the_papers_networks_are_as_trained_as_their_cards_say():
  m, c = zoo.load("paper-marginal"), zoo.load("paper-conditional")
  sampler, quarks, boundary = m.marginal(), joint.log_determinant(c.conditional(), 4, 1), m.card.boundary

  def one(key):
    drawn = sampler.sample(m.params, key)
    log_det = 2 * determinant.log_det(drawn.u, m.card.kappa, boundary)
    return drawn.u, log_det, log_det - gauge.wilson(drawn.u, m.card.beta) - drawn.log_q

  keys = jax.random.split(jax.random.key(7), 24)
  u, log_det, log_w = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=8))(keys)
  assert weights.ess(np.asarray(log_w, np.float64)) > 0.5 * m.card.ess > 0.05
  # Untrained, the spectral layers are the identity, KL 45; the mean of log w is ln Z - KL.
  assert float(log_w.mean()) > 44.5
  estimate = jax.jit(lambda u, keys: jax.lax.map(lambda x: quarks(c.params, *x).log_draws, (u, keys)))(u[:3], keys[:3])
  # Untrained PTCNs have -1000 here. A draw's mean log weight is below its log determinant.
  assert -6 < float((estimate - log_det[:3, None]).mean()) < 0


def test_networks_are_published_as_they_are_sampled(tmp_path):
  """A spectral marginal, rounded, and PTCNs: what is read is what was used, and a run can start from it."""
  base = presets.PRESETS["smoke"]
  config = dataclasses.replace(
    base,
    marginal="spectral",
    training=dataclasses.replace(base.training, round=True),
    coupling=dataclasses.replace(base.coupling, layers=2),
    conditional=dataclasses.replace(base.conditional, kind="ptcn", even_odd=False),
    sampling=dataclasses.replace(base.sampling, num_samples=64, num_haar=0),
    output=str(tmp_path / "run"),
  )
  store = commands.sample(config)
  links, fermions = commands.publish(config)
  trained = commands.train_conditional(config)
  assert (links.card.kind, fermions.card.kind) == ("spectral", "ptcn")
  assert fermions.card.draws == 8 and links.card.configurations == 64
  assert links.card.ess == float(weights.ess(store.read("log_w")))
  assert links.card.recipe["optimizer.learning_rate"] == config.optimizer.learning_rate
  files = [tmp_path / "run" / f"{name}.safetensors" for name in ("model", "conditional")]
  for path, model, used in zip(files, (links, fermions), (trained.marginal, trained.conditional)):
    again = zoo.load(path)
    assert again.card == model.card
    jax.tree.map(np.testing.assert_array_equal, again.params, used)
  assert {t.dtype for t in safetensors.numpy.load_file(files[0]).values()} == {np.dtype(np.float16)}
  # The models of the files, on what the run has drawn.
  u, log_q = store.read("u")[0], store.read("log_q")[0]
  m, c = zoo.load(files[0]), zoo.load(files[1])
  assert float(m.marginal(dtype=u.dtype).log_prob(m.params, u)) == pytest.approx(float(log_q), abs=1e-4)
  determinant_of = joint.log_determinant(c.conditional(tolerance=1e-6), 8, 8)
  root = jax.random.key(config.seed)
  key = jax.random.wrap_key_data(distributed.item_keys(jax.random.fold_in(root, 11), 0, 0, 1)[0])
  found = determinant_of(c.params, jnp.asarray(u), key)
  np.testing.assert_allclose(found.log_draws, store.read("log_draws")[0], atol=1e-4)
  with pytest.raises(ValueError, match="model of pseudofermions"):
    c.marginal()
  with pytest.raises(ValueError, match="model of links"):
    m.conditional()
  # On, without training, from the files.
  other = dataclasses.replace(
    config,
    training=dataclasses.replace(config.training, num_steps=0, start_from=str(files[0])),
    conditional_training=dataclasses.replace(
      config.conditional_training, steps=(0,), batches=(16,), rates=(1e-3,), start_from=str(files[1])
    ),
    output=str(tmp_path / "other"),
  )
  jax.tree.map(np.testing.assert_array_equal, commands.train_conditional(other), trained)
  wrong = dataclasses.replace(other.training, start_from="su3-4d-beta2")
  with pytest.raises(ValueError, match="'su3-4d-beta2' has not the parameters"):
    commands.train_conditional(dataclasses.replace(other, training=wrong, output=str(tmp_path / "wrong")))


def test_rounding():
  x = np.array([1.0, -3.14159, 1e-5, 0.0], np.float32)
  short = zoo.rounded({"x": x})["x"]
  assert short.dtype == np.float32
  np.testing.assert_allclose(short, x, rtol=2.0**-11, atol=2.0**-25)
  with pytest.raises(ValueError, match="65504"):
    zoo.rounded([np.array([1e5], np.float32)])


def test_altered_files_are_refused(tmp_path):
  path = tmp_path / "copy.safetensors"
  zoo.save(path, zoo.load("su3-4d-beta2"))
  data = bytearray(path.read_bytes())
  data[-1] ^= 1  # One bit of the last parameter.
  path.write_bytes(bytes(data))
  with pytest.raises(ValueError, match="damaged or was altered"):
    zoo.load(path)


def test_publish_and_read(tmp_path):
  base = presets.PRESETS["su3_4d"]
  config = dataclasses.replace(
    base,
    theory=dataclasses.replace(base.theory, nc=1, beta=1.0, lattice=(4, 4), boundary=(-1.0, 1.0)),
    flow=dataclasses.replace(base.flow, loops=("ababABAB",)),
    training=dataclasses.replace(base.training, num_steps=2, batch=64, num_evaluate=32),
    sampling=dataclasses.replace(base.sampling, num_samples=128, batch=64),
    output=str(tmp_path / "run"),
  )
  commands.sample(config)
  (model,) = commands.publish(config)
  again = zoo.load(tmp_path / "run" / "model.safetensors")
  assert again.card == model.card
  np.testing.assert_array_equal(again.params["deviation"], model.params["deviation"])
  assert np.abs(again.params["deviation"]).max() > 0
  assert again.flow((5, 4)) is not None
  with pytest.raises(FileExistsError):
    commands.publish(config)
  with pytest.raises(ValueError, match="that this run has trained can be published"):
    commands.publish(dataclasses.replace(presets.PRESETS["reproduce"], output=str(tmp_path / "other")))


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
