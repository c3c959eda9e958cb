"""Mistakes in flows, models and training."""

from __future__ import annotations

from mistakes.mutant import of

MUTANTS = [
  *of(
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
  *of(
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
  *of(
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
  *of(
    "flows/loop_action.py",
    "tests/flows/test_loop_action.py tests/flows/test_trivializing.py",
    ("-(after + second),", "after + second,"),
    ("jnp.sum(trm2.real) - 2 * w5,", "jnp.sum(trm2.real) - w5,"),
    ("h = 4 * c5 * p +", "h = 2 * c5 * p +"),
  ),
  *of(
    "flows/residual.py",
    "tests/flows/test_residual.py",
    ("group.mul(algebra.dexp(-ad), dz)", "group.mul(algebra.dexp(ad), dz)"),
    ("return found, -jnp.sum(", "return found, jnp.sum("),
    ("bounds = (b, 2 * b**2, 2 * nc * b**2, 2 * nc * b**2)", "bounds = (b, b**2, nc * b**2, nc * b**2)"),
  ),
  *of(
    "flows/staples.py",
    "tests/flows/test_residual.py",
    ("seen(mu, (nu, -1)), seen(nu, (nu, -1))]", "seen(mu, (nu, 1)), seen(nu, (nu, -1))]"),
  ),
  *of(
    "flows/hopping.py",
    "tests/flows/test_conditional_flows.py",
    ("phi = diagonal(phi, -1) / (1 + twist**2)", "phi = diagonal(phi, -1)"),
    ("read = geometry.colours > c if triangle", "read = geometry.colours < c if triangle"),
    ("lax.fori_loop(0, count - 1, lambda", "lax.fori_loop(0, count - 2, lambda"),
    ("even = even - kappa * to_even.apply(odd_part)", "even = even + kappa * to_even.apply(odd_part)"),
  ),
  *of(
    "flows/ptcn.py",
    "tests/flows/test_conditional_flows.py",
    (
      "(jnp.exp(s) * kept + moved if sign > 0 else jnp.exp(-s) * (kept - moved))",
      "(jnp.exp(s) * kept + moved if sign > 0 else jnp.exp(-s) * kept - moved)",
    ),
    ("2 * jnp.sum(outputs[:, -1] * rank)", "jnp.sum(outputs[:, -1] * rank)"),
  ),
  *of(
    "flows/transport.py",
    "tests/flows/test_transport.py",
    ("back = fusion.materialise(_halves(g)), weights.swapaxes(1, 2)", "back = fusion.materialise(_halves(g)), weights"),
    ("_neighbour(x, lattice, i // 2, -_sign(i))", "_neighbour(x, lattice, i // 2, _sign(i))"),
    ("imag += a[1] * b[0] - a[0] * b[1]", "imag += a[0] * b[1] - a[1] * b[0]"),
  ),
  *of(
    "models/conditional.py",
    "tests/models/test_joint.py",
    ("log_q += -solvers.norm2(chi) - flow.logdet", "log_q += -solvers.norm2(chi) + flow.logdet"),
    ("a.inverse(b.inverse(phi)), a.logdet + b.logdet", "a.inverse(b.inverse(phi)), a.logdet - b.logdet"),
  ),
  *of(
    "models/joint.py",
    "tests/models/test_joint.py",
    ("jax.nn.logsumexp(draws) - jnp.log(num_draws)", "jax.nn.logsumexp(draws) - 0 * jnp.log(num_draws)"),
    ("return -draw.action - draw.log_q", "return draw.action - draw.log_q"),
    ("lax.map(one, first + jnp.arange", "lax.map(one, jnp.arange"),
  ),
  *of(
    "training/objectives.py",
    "tests/training tests/models/test_joint.py",
    (
      "log_q = model.log_prob(lax.stop_gradient(params), sample.u) if path",
      "log_q = model.log_prob(params, sample.u) if path",
    ),
    ("return log_q + draw.action, proposal.log_w", "return log_q - draw.action, proposal.log_w"),
    ("precision.added(squares) / 4", "precision.added(squares) / (2 * num_draws)"),
    ("lambda g: g / num_draws, by_params", "lambda g: g, by_params"),
    ("return jnp.sum(values), outcomes", "return jnp.mean(values), outcomes"),
    ("mean.log_w.astype(score.dtype) * score - cross", "cross - mean.log_w.astype(score.dtype) * score"),
  ),
  *of(
    "training/natural.py",
    "tests/training/test_natural.py",
    ("w * (mean.cross - mean.score * mean.log_w)", "w * (mean.score * mean.log_w - mean.cross)"),
    ("mean.square - np.outer(mean.score, mean.score)", "mean.square"),
  ),
  *of(
    "training/continuity.py",
    "tests/training/test_continuity.py",
    ("force = -s / (2 * nc) * gradients[0]", "force = -s / nc * gradients[0]"),
    ("return Terms(-w0[0] / (2 * nc)", "return Terms(w0[0] / (2 * nc)"),
  ),
]
