"""Mistakes in lattice, theory and mcmc."""

from __future__ import annotations

from mistakes.mutant import of

MUTANTS = [
  *of(
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
  *of(
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
  *of(
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
  *of(
    "lattice/precision.py",
    "tests/lattice/test_sites_loops.py",
    ("x[..., half : 2 * half], x[..., 2 * half :]]", "x[..., half : 2 * half], x[..., 2 * half + 1 :]]"),
  ),
  *of(
    "lattice/exponential.py",
    "tests/lattice/test_group.py",
    ("return a, -1j * b, -c", "return a, -1j * b, c"),
    ("2 * a * b + 2 * b * c * p + c * c * d", "2 * a * b + 2 * b * c * p - c * c * d"),
    ("fori_loop(0, _FIXED_SQUARINGS, step", "fori_loop(0, 8, step"),
  ),
  *of(
    "lattice/integrators.py",
    "tests/lattice/test_integrators.py tests/mcmc/test_hmc.py",
    ("p = p - kick * force(u)", "p = p + kick * force(u)"),
    ("_LAMBDA = 0.1931833275037836", "_LAMBDA = 0.2031833275037836"),
    ("(1 / 4, 8 / 9, 3 / 4)", "(1 / 4, 8 / 9, 2 / 3)"),
    ("integral + h * quadrature * r)", "integral - h * quadrature * r)"),
    ("kicks[len(inner) : -1 : len(inner)] += table.kicks[-1]", "kicks[len(inner) : -1 : len(inner)] += 0"),
  ),
  *of(
    "theory/gauge.py",
    "tests/theory/test_actions.py",
    ("return -(beta / u.shape[1]) * loops.", "return -beta * loops."),
    ("force = (0.5 * beta / u.shape[1]) * group.project(", "force = (beta / u.shape[1]) * group.project("),
    ("return 1 - 8 * c1", "return 1 - 4 * c1"),
    ("force.at[mu].set(-0.5 * coupling", "force.at[mu].set(0.5 * coupling"),
  ),
  *of(
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
  *of(
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
  *of(
    "theory/determinant.py",
    "tests/theory/test_dirac.py",
    ("jnp.sum(_inverse(a).T * da).real", "jnp.sum(_inverse(a).conj().T * da).real"),
    ("return log_abs_det(matrix @ matrix.conj().T + mu0", "return log_abs_det(matrix @ matrix.conj().T - mu0"),
  ),
  *of(
    "theory/observables.py",
    "tests/theory",
    ("- _density(plane[0, 2], plane[1, 3])", "+ _density(plane[0, 2], plane[1, 3])"),
    ("return jnp.roll(jnp.sum(density, axis=1), -source[0])", "return jnp.roll(jnp.sum(density, axis=1), source[0])"),
    ("odd + kappa * to_odd.apply(dirac.untwist(even, mu))", "odd + kappa * to_odd.apply(even)"),
    ("even = even + kappa * to_even.apply(odd)", "even = even - kappa * to_even.apply(odd)"),
  ),
  *of(
    "theory/wilson_flow.py",
    "tests/theory/test_wilson_flow.py",
    ("return -group.project(loops.link_plaquettes", "return -0.5 * group.project(loops.link_plaquettes"),
    ("8 / 9 * z1 - 17 / 36 * z0", "8 / 9 * z1 - 19 / 36 * z0"),
  ),
  *of(
    "theory/dirac.py",
    "tests/theory/test_actions.py",
    ("checkerboard.merge(untwist(to_odd.adjoint(a), -mu)", "checkerboard.merge(untwist(to_odd.adjoint(a), mu)"),
  ),
  *of("theory/torus.py", "tests/theory/test_torus.py", ("np.log(c) - np.log(_dimension(weight))", "np.log(c)")),
  *of(
    "mcmc/hmc.py",
    "tests/mcmc/test_hmc.py",
    ("probability = jnp.exp(jnp.minimum(-end.delta_h, 0.0))", "probability = jnp.exp(jnp.minimum(end.delta_h, 0.0))"),
    (
      "probability = jnp.where(jnp.isfinite(end.delta_h), probability, 0.0)",
      "probability = jnp.where(jnp.isfinite(end.delta_h), probability, 1.0)",
    ),
    ("return 0.5 * group.norm2(momentum)", "return group.norm2(momentum)"),
  ),
  *of(
    "mcmc/metropolis.py",
    "tests/mcmc/test_metropolis.py",
    ("jnp.exp(jnp.minimum(new - old, 0.0))", "jnp.exp(jnp.minimum(old - new, 0.0))"),
    ("jnp.where(jnp.isnan(ratio) | jnp.isneginf(new), 0.0, ratio)", "jnp.where(jnp.isnan(ratio), 1.0, ratio)"),
  ),
  *of(
    "mcmc/annealing.py",
    "tests/mcmc/test_annealing.py",
    ("- after.value(moved.point, none) + moved.logdet", "- after.value(moved.point, none) - moved.logdet"),
    ("- after.value(moved.point, none)", "- after.value(u, none)"),
    ("kernel_at(new).step", "kernel_at(old).step"),
  ),
  *of(
    "mcmc/heatbath.py",
    "tests/mcmc/test_heatbath.py",
    ("strength = beta if nc == 1 else 2 * beta / nc", "strength = beta if nc == 1 else beta / nc"),
    ("0.5 * (w[0, 1] - w[1, 0].conj())", "0.5 * (w[0, 1] + w[1, 0].conj())"),
    ("creutz_accepts = r[3] ** 2 <= 1 - creutz**2", "creutz_accepts = r[3] <= 1 - creutz**2"),
    ("accepts = r[3] ** 2 <= 1 - 0.5 * delta", "accepts = r[3] <= 1 - 0.5 * delta"),
    ("f = (1 + r * z) / (r + z)", "f = (1 - r * z) / (r + z)"),
    ("return group.mul(back, back)", "return back"),
  ),
  *of(
    "mcmc/sweeps.py",
    "tests/mcmc/test_sweeps.py",
    ("checkerboard.shift(below[i], lattice, nu, -1, parity)", "checkerboard.shift(below[i], lattice, nu, 1, parity)"),
    ("mul(adj(mul(jnp.broadcast_to(there[mu]", "mul((mul(jnp.broadcast_to(there[mu]"),
    (
      "jnp.sum(above + each(below, behind[parity, axes]), axis=0)",
      "jnp.sum(above + each(below, ahead[parity, axes]), axis=0)",
    ),
  ),
  *of(
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
  *of(
    "mcmc/link_flow.py",
    "tests/mcmc/test_link_flow.py",
    ("update(key, u, staple, beta / 3, fresh)", "update(key, u, staple, beta / 2, fresh)"),
  ),
  *of(
    "mcmc/flowed.py",
    "tests/mcmc/test_flowed.py",
    ("return target.value(end.point, fields) - end.logdet", "return target.value(end.point, fields) + end.logdet"),
  ),
]
