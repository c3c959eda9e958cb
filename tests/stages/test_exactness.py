"""Pulls of samplers, and that mistakes are seen in them."""

import json

import jax
import numpy as np
import pytest

from flowqcd import tools
from flowqcd.analysis import statistics
from flowqcd.mcmc import heatbath
from flowqcd.stages import exact_cases, exact_sampling, exactness


def _toys(shift=0.0):
  """A chain of mean `shift` and weights of ln Z = 1 + shift, said to be 0 and 1, and a chain with a reference."""
  mean = lambda found: {"x": statistics.mean_of_streams(found["x"][:, None])}
  normal = lambda offset: lambda key: {"x": offset + jax.random.normal(key)}
  log_w = lambda key: {"log_w": 1 + shift - 0.125 + 0.5 * jax.random.normal(key)}
  return [
    exact_sampling.Case("reference", normal(0.0), mean, {}),
    exact_sampling.Case("chain", normal(shift), mean, {"x": 0.0}),
    exact_sampling.Case("other", normal(shift), mean, "reference"),
    exact_sampling.weighted("weights", log_w, {"ln Z": 1.0}),
  ]


def _run(monkeypatch, tmp_path, toys, **plan):
  monkeypatch.setattr(exact_cases, "all_cases", lambda: toys)
  return exactness.run(exactness.Plan(minutes=1e-4, output=str(tmp_path / "run"), **plan))


def test_right_answers_pass_and_are_written(monkeypatch, tmp_path, capsys):
  summary = _run(monkeypatch, tmp_path, _toys())
  assert summary.passed and summary.num == 3
  written = json.loads((tmp_path / "run" / "exactness.json").read_text())
  assert [(p["case"], p["observable"]) for p in written["pulls"]] == [
    ("chain", "x"),
    ("other", "x"),
    ("weights", "ln Z"),
  ]
  assert written["summary"]["chi2"] == pytest.approx(sum(p["pull"] ** 2 for p in written["pulls"]))
  other = written["pulls"][1]
  # The reference's error counts as well.
  assert other["error"] == pytest.approx(np.sqrt(2 / other["num"]), rel=0.2)
  assert "reference: a reference" in (out := capsys.readouterr().out) and "passed" in out


def test_wrong_answers_fail(monkeypatch, tmp_path):
  assert not _run(monkeypatch, tmp_path, _toys(0.7)).passed
  monkeypatch.setattr(exact_cases, "all_cases", lambda: _toys(0.7))
  plan = exactness.Plan(1e-4, str(tmp_path))
  monkeypatch.setattr(tools.flags, "run", lambda checked, *_, **__: checked(plan))
  with pytest.raises(SystemExit) as end:
    tools.exactness(["exactness"])
  assert end.value.code == 1


def test_a_reference_is_run_for_whoever_needs_it(monkeypatch, tmp_path):
  assert _run(monkeypatch, tmp_path, _toys(), cases="^other").num == 1
  with pytest.raises(ValueError, match="no case has a name that matches 'nonsense'"):
    _run(monkeypatch, tmp_path, _toys(), cases="nonsense")


@pytest.mark.parametrize(
  "pulls, passed",
  [
    ([0.5, -1.0, 1.2], True),
    ([4.6] + 200 * [0.1], False),
    ([4.46] + 101 * [0.1], False),
    (30 * [1.8], False),
    ([np.nan], False),
    ([4.4] + 200 * [0.1], True),
  ],
)
def test_summary(pulls, passed):
  found = exactness.summarise(pulls)
  assert found.passed == passed and found.num == len(pulls)


@pytest.mark.slow
def test_every_name_is_there_once():
  names = [case.name for case in exact_cases.all_cases()]
  assert len(names) == len(set(names)) > 30


def test_more_items_begin_with_the_same():
  case = exact_sampling.Case("all", lambda key: {"x": jax.random.normal(key)}, lambda found: found, {}, chunk=2)
  few, many = (exact_sampling.sample(case, jax.random.key(1), seconds).estimates["x"] for seconds in (0.0, 0.2))
  assert len(many) > len(few)
  np.testing.assert_array_equal(many[: len(few)], few)


SLICE = r"U\(1\), (HMC, leapfrog|heat bath|annealing, heat bath|trivializing|independence)|one SU\(3\) link"


@pytest.mark.slow
def test_samplers_are_exact(tmp_path):
  assert exactness.run(exactness.Plan(minutes=1, output=str(tmp_path), cases=SLICE)).passed


@pytest.mark.slow
def test_a_coupling_off_by_half_a_percent_is_seen(tmp_path):
  t = exact_cases.on_torus(1, 2.0)
  start = exact_sampling.haar(1, exact_sampling.LATTICE)
  pulls = []
  for beta in (2.0, 2.01):
    case = exact_sampling.chain("heat bath", heatbath.make(beta, 1), start, t.measure, t.known, chunk=64)
    sampled = exact_sampling.sample(case, jax.random.key(0), 60.0)
    pulls.append({p.observable: p.pull for p in exactness.compare(case, sampled, {})})
  assert abs(pulls[0]["plaquette"]) < 4 and pulls[1]["plaquette"] > 5
