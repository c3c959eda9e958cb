"""Mistakes in io, analysis, runs and stages."""

from __future__ import annotations

from mistakes.mutant import of

MUTANTS = [
  *of(
    "io/configurations.py",
    "tests/io/test_configurations.py",
    ("if drifted and strict and not reunitarise:", "if drifted and strict and reunitarise:"),
    ("if extents is not None and tuple(extents) != lattice:", "if False:"),
  ),
  *of(
    "io/fields.py",
    "tests/io/test_configurations.py",
    ("for i, mu in enumerate((*range(1, nd), 0))", "for i, mu in enumerate(range(nd))"),
  ),
  *of("io/hdf5.py", "tests/io/test_configurations.py", ('if digest == "damaged":', 'if digest == "none":')),
  *of(
    "analysis/weights.py",
    "tests/analysis/test_weights.py",
    ("variance = max(1 / ess(log_w) - 1, 0.0) / len(log_w)", "variance = max(1 / ess(log_w), 0.0) / len(log_w)"),
    ("replicas = sums[:, 1:] / sums[:, :1]", "replicas = sums[:, 1:]"),
  ),
  *of(
    "runs/folder.py",
    "tests/runs/test_folder.py",
    ("theirs = {**run.defaults, **found}", "theirs = found"),
    ("  locks.hold(run.folder)\n", ""),
  ),
  *of(
    "runs/marginals.py",
    "tests/runs/test_marginals.py",
    ("custom.load(name) if own.is_name(name) else ", ""),
    ("priors.check(choice.prior, theory)", "pass"),
  ),
  *of(
    "runs/theories.py",
    "tests/runs/test_theories.py",
    ("return near + rest(u, theory.beta) if rest else near", "return near"),
  ),
  *of(
    "stages/annealing.py",
    "tests/runs/test_theories.py",
    ("kind.make(beta / kind.plaquettes,", "kind.make(beta,"),
  ),
  *of("stages/targets.py", "tests/stages/test_flows.py", ("- 2 * determinant.log_det", "- determinant.log_det")),
  *of(
    "stages/check.py",
    "tests/stages/test_check.py",
    ('states.add(found["state"])', "states.add(OK)"),
    ("if states - {OK, NO_EXTENTS}:", "if states - {OK}:"),
    ("return 2 if NO_EXTENTS in states else 0", "return 0"),
  ),
  *of(
    "stages/measure_files.py",
    "tests/stages/test_measure_files.py",
    ("x.std(ddof=1) / np.sqrt(len(x))", "x.std(ddof=1)"),
    ("if not files.is_vacant(folder):", "if False:"),
    ("first = load(paths[0], plan.extents, _FLAG)[1]", "first = load(paths[0], (), _FLAG)[1]"),
    ("groups(paths, size, plan.extents, _FLAG)", "groups(paths, size, (), _FLAG)"),
  ),
  *of(
    "stages/export.py",
    "tests/stages/test_export.py",
    (
      "for u in rows.reshape(streams, -1, *rows.shape[1:])[stream]",
      "for u in rows.reshape(-1, streams, *rows.shape[1:])[:, stream]",
    ),
    (
      'metropolis.chain(key, jnp.asarray(store.read("log_w")))',
      'metropolis.chain(key, -jnp.asarray(store.read("log_w")))',
    ),
    ('yield Item(f"{store.path.name}-{index:06d}", u, ', 'yield Item(f"{store.path.name}-{index:06d}", u.conj(), '),
  ),
  *of(
    "stages/weigh.py",
    "tests/stages/test_weigh.py",
    ("log_q = prior.log_prob(z) + logdet", "log_q = prior.log_prob(z) - logdet"),
    ("theories.log_det(theory, u) - theories.gauge_value", "theories.log_det(theory, u) + theories.gauge_value"),
    ("groups(paths, size, plan.extents,", "groups(paths, size, (),"),
  ),
  *of("stages/chains.py", "tests/stages/test_chains.py", ("plan.thermalisation + done, per_part", "done, per_part")),
]
