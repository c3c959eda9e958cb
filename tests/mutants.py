"""Deliberate mistakes, each of which must fail the tests named beside it: `make mutants`.

`python tests/mutants.py [word]` does the same: with a word, only mutants in whose file, text or tests it occurs.

A test suite is worth what it catches. Every line of MUTANTS is one mistake that a person could make: a sign, a factor, a
point at which something is read. The script puts each into a copy of the tree, runs the tests beside it there and expects
them to fail; it prints what survived, and exits with status 1 if anything did. With a word, only mutants in whose file,
text or tests it occurs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("flowqcd", "experiments", "tests", "pyproject.toml", "Makefile", "README.md")


class Mutant(NamedTuple):
  """In `file` the text `old`, which occurs once, becomes `new`. tests: what must fail then, as arguments of pytest."""

  file: str
  old: str
  new: str
  tests: str


def _of(file: str, tests: str, *changes: tuple[str, str]) -> list[Mutant]:
  return [Mutant(f"flowqcd/{file}", old, new, tests) for old, new in changes]


MUTANTS = [
  # Lattice: group, loops, exponential, integrators.
  *_of(
    "lattice/group.py",
    "tests/lattice/test_group.py",
    ("  return -2 * jnp.einsum(", "  return 2 * jnp.einsum("),
    (
      "  return 2 * jnp.sum(x.real**2 + x.imag**2, axis=(-3, -2))\n\n\ndef gaussian",
      "  return jnp.sum(x.real**2 + x.imag**2, axis=(-3, -2))\n\n\ndef gaussian",
    ),
    ("return (-0.5 * project(mul(flat", "return (0.5 * project(mul(flat"),
    ("rows[-1] = rows[-1] * det(frame).conj()", "rows[-1] = rows[-1] * det(frame)"),
    ("0.5 if nc == 1 else (nc * nc - 1) / (2 * nc)", "0.5 if nc == 1 else (nc * nc - 1) / nc"),
  ),
  *_of(
    "lattice/loops.py",
    "tests/lattice/test_sites_loops.py tests/theory/test_actions.py",
    (
      "total = total + above + sites.shift(below, lattice, nu, -1)",
      "total = total + above + sites.shift(below, lattice, nu, 1)",
    ),
    (
      "top = group.mul(double, sites.shift(v[nu], lattice, mu, 2))",
      "top = group.mul(double, sites.shift(v[nu], lattice, mu, 1))",
    ),
    (
      "back_both = sites.shift(sites.shift(from_both, lattice, mu, -1), lattice, nu, -1)",
      "back_both = sites.shift(from_both, lattice, mu, -1)",
    ),
    (
      "LinkParts(p.origin, group.adjoint(p.origin), p.at_mu, p.at_nu)",
      "LinkParts(p.origin, p.origin, p.at_mu, p.at_nu)",
    ),
  ),
  *_of(
    "lattice/rectangles.py",
    "tests/theory/test_actions.py",
    (
      "outside_right, outside_left = sites.shift(side.above, lattice, mu), side.below",
      "outside_right, outside_left = side.above, side.below",
    ),
    ("+ r * sites.shift(link.above, lattice, nu)", "+ r * link.above"),
    (
      "sites.shift(v[nu], lattice, mu, 2), sites.shift(double",
      "sites.shift(v[nu], lattice, mu, 1), sites.shift(double",
    ),
  ),
  *_of(
    "lattice/exponential.py",
    "tests/lattice/test_group.py",
    ("return a, -1j * b, -c", "return a, -1j * b, c"),
    ("2 * a * b + 2 * b * c * p + c * c * d", "2 * a * b + 2 * b * c * p - c * c * d"),
  ),
  *_of(
    "lattice/integrators.py",
    "tests/lattice/test_integrators.py tests/mcmc/test_hmc.py",
    ("p = p - kick * force(u)", "p = p + kick * force(u)"),
    ("_LAMBDA = 0.1931833275037836", "_LAMBDA = 0.2031833275037836"),
    ("(1 / 4, 8 / 9, 3 / 4)", "(1 / 4, 8 / 9, 2 / 3)"),
    ("integral + h * quadrature * r)", "integral - h * quadrature * r)"),
    ("kicks[len(inner) : -1 : len(inner)] += table.kicks[-1]", "kicks[len(inner) : -1 : len(inner)] += 0"),
  ),
  # Files.
  *_of(
    "io/configurations.py",
    "tests/io/test_configurations.py",
    ("if drifted and strict and not reunitarise:", "if drifted and strict and reunitarise:"),
    ("if extents is not None and tuple(extents) != lattice:", "if False:"),
  ),
  *_of(
    "io/fields.py",
    "tests/io/test_configurations.py",
    ("for i, mu in enumerate((*range(1, nd), 0))", "for i, mu in enumerate(range(nd))"),
  ),
  *_of("io/hdf5.py", "tests/io/test_configurations.py", ('if digest == "damaged":', 'if digest == "none":')),
  # Theory: actions, quarks, observables.
  *_of(
    "theory/gauge.py",
    "tests/theory/test_actions.py",
    ("return -(beta / u.shape[1]) * loops.", "return -beta * loops."),
    ("force = (0.5 * beta / u.shape[1]) * group.project(", "force = (beta / u.shape[1]) * group.project("),
    ("return 1 - 8 * c1", "return 1 - 4 * c1"),
    ("force.at[mu].set(-0.5 * coupling", "force.at[mu].set(0.5 * coupling"),
  ),
  *_of(
    "theory/dirac.py",
    "tests/theory/test_dirac.py",
    (
      "return jnp.stack([psi[:half] - sign * r for r in rotated for sign in (1, -1)])",
      "return jnp.stack([psi[:half] + sign * r for r in rotated for sign in (1, -1)])",
    ),
    (
      "factor = jnp.ones(lattice[mu], u.dtype).at[-1].set(phase)",
      "factor = jnp.ones(lattice[mu], u.dtype).at[0].set(phase)",
    ),
    (
      "return -0.5 * group.project(group.mul(v, fusion.materialise(outer)))",
      "return -group.project(group.mul(v, fusion.materialise(outer)))",
    ),
    ("return -(kappa**2) * hop_derivative", "return kappa**2 * hop_derivative"),
    ("result + mu0 * psi if mu0", "result - mu0 * psi if mu0"),
    ("  rho = (1 + mu**2) ** 0.5", "  rho = 1.0"),
    ("gamma5(apply(gamma5(psi), -mu)), derivative)", "gamma5(apply(gamma5(psi), mu)), derivative)"),
  ),
  *_of(
    "theory/pseudofermion.py",
    "tests/theory/test_actions.py",
    ("return 2 * (x.conj() * s).real - _squares(", "return (x.conj() * s).real - _squares("),
    ("sites.unflatten(2 * operator.derivative(x, moving)", "sites.unflatten(operator.derivative(x, moving)"),
    (
      "phi if mass is None else _twisted(operator, mass, phi)",
      # Its sign is a symmetry: W is gamma5 (H + i mass) with H = gamma5 M, and only H^2 + mass^2 counts.
      "phi if mass is None else _twisted(operator, 2 * mass, phi)",
    ),
    ("_twisted(operator_of(u), mu0**0.5, chi)", "_twisted(operator_of(u), mu0, chi)"),
  ),
  *_of(
    "theory/determinant.py",
    "tests/theory/test_dirac.py",
    ("jnp.sum(_inverse(a).T * da).real", "jnp.sum(_inverse(a).conj().T * da).real"),
    ("return log_abs_det(matrix @ matrix.conj().T + mu0", "return log_abs_det(matrix @ matrix.conj().T - mu0"),
  ),
  *_of(
    "theory/observables.py",
    "tests/theory",
    ("- _density(plane[0, 2], plane[1, 3])", "+ _density(plane[0, 2], plane[1, 3])"),
    ("return jnp.roll(jnp.sum(density, axis=1), -source[0])", "return jnp.roll(jnp.sum(density, axis=1), source[0])"),
    ("odd + kappa * to_odd.apply(dirac.untwist(even, mu))", "odd + kappa * to_odd.apply(even)"),
    ("even = even + kappa * to_even.apply(odd)", "even = even - kappa * to_even.apply(odd)"),
  ),
  *_of(
    "theory/wilson_flow.py",
    "tests/theory/test_wilson_flow.py",
    ("return -group.project(loops.link_plaquettes", "return -0.5 * group.project(loops.link_plaquettes"),
    ("8 / 9 * z1 - 17 / 36 * z0", "8 / 9 * z1 - 19 / 36 * z0"),
  ),
  *_of(
    "theory/dirac.py",
    "tests/theory/test_actions.py",
    ("checkerboard.merge(untwist(to_odd.adjoint(a), -mu)", "checkerboard.merge(untwist(to_odd.adjoint(a), mu)"),
  ),
  *_of("theory/torus.py", "tests/theory/test_torus.py", ("np.log(c) - np.log(_dimension(weight))", "np.log(c)")),
  # Markov chains.
  *_of(
    "mcmc/hmc.py",
    "tests/mcmc/test_hmc.py",
    ("probability = jnp.exp(jnp.minimum(-end.delta_h, 0.0))", "probability = jnp.exp(jnp.minimum(end.delta_h, 0.0))"),
    (
      "probability = jnp.where(jnp.isfinite(end.delta_h), probability, 0.0)",
      "probability = jnp.where(jnp.isfinite(end.delta_h), probability, 1.0)",
    ),
    ("return 0.5 * group.norm2(momentum)", "return group.norm2(momentum)"),
  ),
  *_of(
    "mcmc/metropolis.py",
    "tests/mcmc/test_metropolis.py",
    ("jnp.exp(jnp.minimum(new - old, 0.0))", "jnp.exp(jnp.minimum(old - new, 0.0))"),
    ("jnp.where(jnp.isnan(ratio) | jnp.isneginf(new), 0.0, ratio)", "jnp.where(jnp.isnan(ratio), 1.0, ratio)"),
  ),
  *_of(
    "mcmc/annealing.py",
    "tests/mcmc/test_annealing.py",
    ("- after.value(moved.point, none) + moved.logdet", "- after.value(moved.point, none) - moved.logdet"),
    ("- after.value(moved.point, none)", "- after.value(u, none)"),
    ("kernel_at(new).step", "kernel_at(old).step"),
  ),
  *_of(
    "mcmc/heatbath.py",
    "tests/mcmc/test_heatbath.py",
    ("strength = beta if nc == 1 else 2 * beta / nc", "strength = beta if nc == 1 else beta / nc"),
    ("0.5 * (w[0, 1] - w[1, 0].conj())", "0.5 * (w[0, 1] + w[1, 0].conj())"),
    ("creutz_accepts = r[3] ** 2 <= 1 - creutz**2", "creutz_accepts = r[3] <= 1 - creutz**2"),
    ("accepts = r[3] ** 2 <= 1 - 0.5 * delta", "accepts = r[3] <= 1 - 0.5 * delta"),
    ("f = (1 + r * z) / (r + z)", "f = (1 - r * z) / (r + z)"),
    ("return group.mul(back, back)", "return back"),
  ),
  *_of(
    "mcmc/sweeps.py",
    "tests/mcmc/test_sweeps.py",
    ("checkerboard.shift(below[i], lattice, nu, -1, parity)", "checkerboard.shift(below[i], lattice, nu, 1, parity)"),
  ),
  *_of(
    "mcmc/link.py",
    "tests/mcmc/test_link_flow.py",
    (
      "log_delta = _log_delta_density(delta, plane.a) - 0.5 *",
      "log_delta = _log_delta_density(delta, plane.a) + 0.5 *",
    ),
    ("(4 * (1 + y.rho) * y.rho)", "(4 * (1 + y.rho))"),
    (
      "return Latent(1 - latent.quantiles, -latent.phases, -latent.direction)",
      "return Latent(1 - latent.quantiles, -latent.phases, latent.direction)",
    ),
  ),
  *_of(
    "mcmc/link_flow.py",
    "tests/mcmc/test_link_flow.py",
    ("update(key, u, staple, beta / 3, fresh)", "update(key, u, staple, beta / 2, fresh)"),
  ),
  *_of(
    "mcmc/flowed.py",
    "tests/mcmc/test_flowed.py",
    ("return target.value(end.point, fields) - end.logdet", "return target.value(end.point, fields) + end.logdet"),
  ),
  # Flows of the links.
  *_of(
    "flows/spectral.py",
    "tests/flows/test_spectral.py tests/flows/test_coupling.py",
    ("return end.low[0] + 2 * (outer + inner)", "return 2 * (outer + inner)"),
    ("y = (4 / 3) * w * (t[1] - 0.5)", "y = (4 / 3) * w * (0.5 - t[1])"),
    (
      "second = (first - other) / _difference(theta[0], theta[2])",
      "second = (other - first) / _difference(theta[0], theta[2])",
    ),
    ("return theta, (jnp.exp(-1j * theta) * change).imag", "return theta, (jnp.exp(1j * theta) * change).imag"),
  ),
  *_of(
    "flows/coupling.py",
    "tests/flows/test_coupling.py",
    (", -logdet if inverse else logdet\n\n\ndef _spread", ", logdet\n\n\ndef _spread"),
    ("first = jnp.where(m.flipped, there, here)", "first = jnp.where(m.flipped, here, there)"),
    (
      "traces = jnp.where(m.frozen.reshape(len(a), -1), jnp.sum(top * bottom.conj(), axis=(1, 2)), 0)",
      "traces = jnp.sum(top * bottom.conj(), axis=(1, 2))",
    ),
    ("before, after = (value.y, t_k) if inverse else (t_k, value.y)", "before, after = (t_k, value.y)"),
  ),
  *_of(
    "flows/trivializing.py",
    "tests/flows/test_trivializing.py",
    (
      "return Target(beta + 8 * ns * nc * kappa**4 * on_plaquettes, lines)",
      "return Target(beta + 4 * ns * nc * kappa**4 * on_plaquettes, lines)",
    ),
    ("(2 - cosine**2) / scale**2", "1 / scale**4"),
    ("2.0 ** (n + 1) * ns * on_lines**n * float(np.real(s))", "2.0 ** (n + 1) * ns * on_lines**n"),
    (
      "      return -action.gradient, action.laplacian\n\n    return velocity",
      "      return -action.gradient, -action.laplacian\n\n    return velocity",
    ),
    (
      "products = np.array([1, -1, -inv, inv, -2, 2 * inv, -4 * inv])",
      "products = np.array([1, -1, -inv, inv, -2, 2 * inv, -2 * inv])",
    ),
  ),
  *_of(
    "flows/loop_action.py",
    "tests/flows/test_loop_action.py tests/flows/test_trivializing.py",
    ("-(after + second),", "after + second,"),
    ("jnp.sum(trm2.real) - 2 * w5,", "jnp.sum(trm2.real) - w5,"),
    ("h = 4 * c5 * p +", "h = 2 * c5 * p +"),
  ),
  *_of(
    "flows/residual.py",
    "tests/flows/test_residual.py",
    ("group.mul(algebra.dexp(-ad), dz)", "group.mul(algebra.dexp(ad), dz)"),
    ("return found, -jnp.sum(", "return found, jnp.sum("),
    ("bounds = (b, 2 * b**2, 2 * nc * b**2, 2 * nc * b**2)", "bounds = (b, b**2, nc * b**2, nc * b**2)"),
  ),
  *_of(
    "flows/staples.py",
    "tests/flows/test_residual.py",
    ("seen(mu, (nu, -1)), seen(nu, (nu, -1))]", "seen(mu, (nu, 1)), seen(nu, (nu, -1))]"),
  ),
  # Flows of the pseudofermions.
  *_of(
    "flows/hopping.py",
    "tests/flows/test_conditional_flows.py",
    ("phi = diagonal(phi, -1) / (1 + twist**2)", "phi = diagonal(phi, -1)"),
    ("read = geometry.colours > c if triangle", "read = geometry.colours < c if triangle"),
    ("lax.fori_loop(0, count - 1, lambda", "lax.fori_loop(0, count - 2, lambda"),
    ("even = even - kappa * to_even.apply(odd_part)", "even = even + kappa * to_even.apply(odd_part)"),
  ),
  *_of(
    "flows/ptcn.py",
    "tests/flows/test_conditional_flows.py",
    (
      "(jnp.exp(s) * kept + moved if sign > 0 else jnp.exp(-s) * (kept - moved))",
      "(jnp.exp(s) * kept + moved if sign > 0 else jnp.exp(-s) * kept - moved)",
    ),
    ("2 * jnp.sum(outputs[:, -1] * rank)", "jnp.sum(outputs[:, -1] * rank)"),
  ),
  *_of(
    "flows/transport.py",
    "tests/flows/test_transport.py",
    ("back = fusion.materialise(_halves(g)), weights.swapaxes(1, 2)", "back = fusion.materialise(_halves(g)), weights"),
    ("_neighbour(x, lattice, i // 2, -_sign(i))", "_neighbour(x, lattice, i // 2, _sign(i))"),
    ("imag += a[1] * b[0] - a[0] * b[1]", "imag += a[0] * b[1] - a[1] * b[0]"),
  ),
  # Models and training.
  *_of(
    "models/conditional.py",
    "tests/models/test_joint.py",
    ("log_q += -solvers.norm2(chi) - flow.logdet", "log_q += -solvers.norm2(chi) + flow.logdet"),
    ("a.inverse(b.inverse(phi)), a.logdet + b.logdet", "a.inverse(b.inverse(phi)), a.logdet - b.logdet"),
  ),
  *_of(
    "models/joint.py",
    "tests/models/test_joint.py",
    ("jax.nn.logsumexp(draws) - jnp.log(num_draws)", "jax.nn.logsumexp(draws) - 0 * jnp.log(num_draws)"),
    ("return -draw.action - draw.log_q", "return draw.action - draw.log_q"),
  ),
  *_of(
    "training/objectives.py",
    "tests/training tests/models/test_joint.py",
    (
      "log_q = model.log_prob(lax.stop_gradient(params), sample.u) if path",
      "log_q = model.log_prob(params, sample.u) if path",
    ),
    ("return log_q + draw.action, proposal.log_w", "return log_q - draw.action, proposal.log_w"),
    ("num_draws**2 * lengths / 4", "num_draws * lengths / 2"),
    ("mean.log_w.astype(score.dtype) * score - cross", "cross - mean.log_w.astype(score.dtype) * score"),
  ),
  *_of(
    "training/natural.py",
    "tests/training/test_natural.py",
    ("w * (mean.cross - mean.score * mean.log_w)", "w * (mean.score * mean.log_w - mean.cross)"),
    ("mean.square - np.outer(mean.score, mean.score)", "mean.square"),
  ),
  *_of(
    "training/continuity.py",
    "tests/training/test_continuity.py",
    ("force = -s / (2 * nc) * gradients[0]", "force = -s / nc * gradients[0]"),
    ("return Terms(-w0[0] / (2 * nc)", "return Terms(w0[0] / (2 * nc)"),
  ),
  *_of(
    "analysis/weights.py",
    "tests/analysis/test_weights.py",
    ("variance = max(1 / ess(log_w) - 1, 0.0) / len(log_w)", "variance = max(1 / ess(log_w), 0.0) / len(log_w)"),
    ("replicas = sums[:, 1:] / sums[:, :1]", "replicas = sums[:, 1:]"),
  ),
  # Runs and stages.
  *_of(
    "runs/folder.py",
    "tests/runs/test_folder.py",
    ("theirs = {**run.defaults, **found}", "theirs = found"),
    ("  locks.hold(run.folder)\n", ""),
  ),
  *_of(
    "runs/marginals.py",
    "tests/runs/test_marginals.py",
    ("custom.load(name) if custom.is_name(name) else ", ""),
    ("priors.check(choice.prior, theory)", "pass"),
  ),
  *_of(
    "runs/theories.py",
    "tests/runs/test_theories.py",
    ("return near + rest(u, theory.beta) if rest else near", "return near"),
  ),
  *_of(
    "stages/annealing.py",
    "tests/runs/test_theories.py",
    ("kind.make(beta / kind.plaquettes,", "kind.make(beta,"),
  ),
  *_of("stages/targets.py", "tests/stages/test_flows.py", ("- 2 * determinant.log_det", "- determinant.log_det")),
  *_of(
    "stages/check.py",
    "tests/stages/test_check.py",
    ('states.add(found["state"])', "states.add(OK)"),
    ("if states - {OK, NO_EXTENTS}:", "if states - {OK}:"),
    ("return 2 if NO_EXTENTS in states else 0", "return 0"),
  ),
  *_of(
    "stages/measure_files.py",
    "tests/stages/test_measure_files.py",
    ("x.std(ddof=1) / np.sqrt(len(x))", "x.std(ddof=1)"),
    ("if not files.is_vacant(folder):", "if False:"),
    ("first = load(paths[0], plan.extents, _FLAG)[1]", "first = load(paths[0], (), _FLAG)[1]"),
    ("groups(paths, size, plan.extents, _FLAG)", "groups(paths, size, (), _FLAG)"),
  ),
  *_of(
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
  *_of(
    "stages/weigh.py",
    "tests/stages/test_weigh.py",
    ("log_q = prior.log_prob(z) + logdet", "log_q = prior.log_prob(z) - logdet"),
    ("theories.log_det(theory, u) - theories.gauge_value", "theories.log_det(theory, u) + theories.gauge_value"),
    ("groups(paths, size, plan.extents,", "groups(paths, size, (),"),
  ),
  *_of("stages/chains.py", "tests/stages/test_chains.py", ("plan.thermalisation + done, per_part", "done, per_part")),
]


def source(mutant: Mutant, root: Path = ROOT) -> str:
  """The mutated file's text. Raises ValueError unless the text to change occurs exactly once."""
  text = (root / mutant.file).read_text()
  if text.count(mutant.old) != 1:
    raise ValueError(f"{mutant.file}: '{mutant.old}' occurs {text.count(mutant.old)} times, not once")
  return text.replace(mutant.old, mutant.new)


def caught(mutant: Mutant, root: Path) -> bool:
  """Whether the mutant's tests fail with it in the copy of the tree at root, which is as before afterwards."""
  path = root / mutant.file
  before, text = path.read_text(), source(mutant, root)
  path.write_text(text)
  try:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()]
    # The copy's own code, and the tree's own store of what is compiled: most programs are those without the mistake.
    places = {"PYTHONPATH": str(root), "XDG_CACHE_HOME": str(ROOT / ".cache")}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=os.environ | places)
  finally:
    path.write_text(before)
  # 1: tests failed. Anything else but 0 means that no test was run, which proves nothing.
  if done.returncode not in (0, 1):
    raise RuntimeError(f"pytest ended with {done.returncode} for {mutant}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
  return done.returncode == 1


def main(word: str = "") -> int:
  """Run all mutants that have the word in them; the number of survivors."""
  chosen = [m for m in MUTANTS if any(word in part for part in m)]
  survived = []
  with tempfile.TemporaryDirectory() as folder:
    for part in PARTS:
      copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
      copy(ROOT / part, Path(folder) / part)
    for i, mutant in enumerate(chosen):
      start = time.monotonic()
      found = caught(mutant, Path(folder))
      survived += [] if found else [mutant]
      verdict = "caught" if found else "SURVIVED"
      print(
        f"{i + 1}/{len(chosen)} {verdict} {time.monotonic() - start:.0f} s  {mutant.file}: {mutant.new!r}", flush=True
      )
  print(f"{len(chosen) - len(survived)} of {len(chosen)} mistakes caught")
  return len(survived)


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:2]) > 0)
