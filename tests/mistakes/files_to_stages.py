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
    ("  locks.hold(run.folder)\n", ""),
    ("if conflicts and not run.aside:", "if False:"),
    ("if store.num_parts:", "if False:"),
    ("for name in stale:", "for name in ():"),
    ("store.describe(self.config)", "pass"),
  ),
  *of(
    "runs/products.py",
    "tests/runs/test_folder.py",
    ("known = {**defaults, **there}", "known = dict(there)"),
    ("return name not in here or name", "return name"),
    ("and name not in free)", "or name in free)"),
    ("for name in (*product.beside, *product.names)", "for name in product.names"),
    ('vain = lambda item: item.name.startswith((".", "damaged-")) or', "vain = lambda item:"),
  ),
  *of(
    "stages/stored.py",
    "tests/runs/test_folder.py",
    ("new[last][0] >= old[last][0]", "new[last][0] != 0"),
    ("new[:last] == old[:last] and ", ""),
    ('"training.num_steps", "training.round")', '"training.round")'),
    ('*(("hmc.",) if moves == "hmc" else ())', '"hmc."'),
  ),
  *of(
    "runs/stopping.py",
    "tests/runs/test_stopping.py",
    ("    signal.signal(each, signal.SIG_DFL)", "    pass"),
    ("return bool(_received)", "return False"),
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
  *of(
    "stages/chains.py",
    "tests/stages/test_chains.py tests/stages/test_growth.py",
    ("plan.thermalisation + done, count", "done, count"),
    ("min(per_part, total - done)", "per_part"),
    ('len(store.read_part(0, "u")) //', 'len(store.read_part(store.num_parts - 1, "u")) //'),
  ),
  *of(
    "stages/draws.py",
    "tests/stages/test_growth.py",
    ("estimates.make(wanted - first, first)", "estimates.make(wanted - first, 0)"),
    ("keys(run, part.start, count)", "keys(run, 0, count)"),
    ('store.read("log_w") - store.read("log_det") +', 'store.read("log_w") +'),
    ("rows[:] = values[: len(rows)]", "rows[:] = values[-len(rows) :]"),
  ),
  *of(
    "stages/step_error.py",
    "tests/stages/test_anneal.py",
    ("before.logdet + end.logdet)", "end.logdet)"),
    ("jnp.stack([old, old, middle])", "jnp.stack([old, old, old])"),
  ),
  *of(
    "runs/flags.py", "tests/runs/test_stopping.py", ("    if goes_on:\n      stopping", "    if True:\n      stopping")
  ),
  *of(
    "stages/costs.py",
    "tests/stages/test_growth.py",
    ("np.median(seconds / rows) * rows.sum()", "np.median(seconds) * len(rows)"),
  ),
  *of(
    "stages/fitting.py",
    "tests/runs/test_stopping.py tests/stages/test_growth.py tests/test_hosts.py",
    (" or step == last or stop:", " or step == last:"),
    ("int(found.step), f", "0, f"),
  ),
  *of(
    "stages/health.py",
    "tests/stages/test_poor_runs.py",
    ("(~np.isfinite(delta_h)).sum()", "np.isnan(delta_h).sum()"),
    ("np.full(np.shape(mean), np.nan)", "np.zeros(np.shape(mean))"),
    ("and accepted.mean() < _POOR", "and False"),
  ),
  *of(
    "distributed.py",
    "tests/test_hosts.py",
    ("mean), hosts.gathered(_join(outputs))", "mean), _join(outputs)"),
    ("own = slice(jax.process_index() * mine, (", "own = slice(0, ("),
  ),
  *of(
    "hosts.py",
    "tests/test_hosts.py",
    ("  if failed:\n", "  if False:\n"),
    ("lambda x: x[0], tree)", "lambda x: x[-1], tree)"),
    ("return np.frombuffer(next(arrays), dtype).reshape(shape)", "return np.zeros(shape, dtype)"),
    ("    _alone = True\n", "    _alone = False\n"),
  ),
  *of("hosts.py", "tests/test_distributed.py", ("count == 1 or (count and is_only)", "count and is_only")),
  *of(
    "io/shared.py",
    "tests/test_hosts.py",
    (
      "hosts.on_first(lambda: self._there.append(columns, attributes))",
      "self._there.append(columns, attributes)",
    ),
  ),
  *of("runs/flags.py", "tests/test_hosts.py", ("      hosts.leave(1)", "      raise")),
  *of(
    "distributed.py",
    "tests/test_domains.py",
    ("lambda x: jnp.swapaxes(x, 0, 1).reshape((rows * each,", "lambda x: x.reshape((rows * each,"),
    ("  domains.mesh(devices)\n", ""),
  ),
  *of(
    "domains.py",
    "tests/test_domains.py",
    ("n = count() if x.shape[-1] % count() == 0 else 1", "n = 1"),
    ("  n = count()\n  if n == 1:", "  n = 1\n  if n == 1:"),
    ("(None,) * (leading + 3 - len(first)), TIME,", "(None,) * (leading + 2 - len(first)), TIME, None,"),
  ),
  *of(
    "lattice/loops.py",
    "tests/test_domains.py",
    ("sites.shift(line, lattice, mu, length)), 2 * length", "sites.shift(line, lattice, mu, 1)), 2 * length"),
    ("group.mul(line[0:even:2], line[1:even:2])", "group.mul(line[1:even:2], line[0:even:2])"),
  ),
  *of("models/conditional.py", "tests/test_wrong_objects.py", ("if len(params) != len(factors):", "if False:")),
  *of("stages/chains.py", "tests/stages/test_chains.py", ("_CACHED_SITES // volume", "_CACHED_SITES")),
  *of("runs/session.py", "tests/runs/test_session.py", ('default_backend() == "tpu"', 'default_backend() == "gpu"')),
  *of("experiment.py", "tests/runs/test_folder.py", ("str(max(value, least))", "str(least)")),
]
