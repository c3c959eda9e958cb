"""Random fields and reference configurations."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.io import fields as files
from flowqcd.io import ildg, nersc
from flowqcd.lattice import group, sites, spin

DATA = pathlib.Path(__file__).parent / "data"


# One program for each shape: operation by operation it would be fifty.
_haar = jax.jit(group.haar, static_argnums=(1, 2))
gauge_transform = jax.jit(sites.gauge_transform)
translate = jax.jit(sites.translate, static_argnums=1)


def links(nc: int, lattice: tuple[int, ...], seed: int = 0, dtype=jnp.complex128):
  """Haar-random links [Nd, Nc, Nc, *L]."""
  shape = (len(lattice), nc, nc, int(np.prod(lattice)))
  return sites.unflatten(_haar(jax.random.key(seed), shape, dtype), lattice)


def normal(shape: tuple[int, ...], dtype=float, seed: int = 0) -> np.ndarray:
  """Normal numbers, complex ones with unit variance, without a compilation."""
  rng = np.random.default_rng(seed)
  if np.issubdtype(dtype, np.complexfloating):
    return ((rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)).astype(dtype)
  return rng.normal(size=shape).astype(dtype)


def spinor(u, parities: int = 1, seed: int = 3) -> np.ndarray:
  """Normal spinors [Ns, Nc, V / parities] for links u."""
  components = spin.components(u.ndim - 3)
  return normal((components, u.shape[1], u[0, 0, 0].size // parities), u.dtype, seed)


def initial(flow, scale: float = 0.0, seed: int = 1):
  """A flow's first parameters, each moved by scale times a normal number: one compilation."""
  params = jax.tree.map(np.asarray, jax.jit(flow.init)(jax.random.key(0)))
  leaves, tree = jax.tree.flatten(params)
  moved = [x + x.dtype.type(scale) * normal(x.shape, x.dtype, seed + i) for i, x in enumerate(leaves)]
  return jax.tree.unflatten(tree, moved)


def haar_in_numpy(lattice: tuple[int, int, int, int], seed: int = 0) -> np.ndarray:
  """Haar-random SU(3) links [4, 3, 3, *L] without a compilation: Q of a QR decomposition, its phases divided out."""
  rng = np.random.default_rng(seed)
  shape = (4, *lattice, 3, 3)
  q, r = np.linalg.qr(rng.normal(size=shape) + 1j * rng.normal(size=shape))
  diagonal = np.diagonal(r, axis1=-2, axis2=-1)
  q = q * (diagonal / np.abs(diagonal))[..., None, :]
  q[..., 0, :] /= np.linalg.det(q)[..., None]
  return np.ascontiguousarray(np.moveaxis(q, (-2, -1), (1, 2)))


def openqcd_bytes(u: np.ndarray) -> bytes:
  """The bytes of openQCD's format, site by site from its definition. [4, 3, 3, *L]."""
  lattice = u.shape[3:]
  parts = [np.array(lattice, "<i4").tobytes(), np.array(3 * files.plaquette(u), "<f8").tobytes()]
  for site in np.ndindex(*lattice):
    if sum(site) % 2:
      for mu in range(4):
        behind = tuple((n - (i == mu)) % lattice[i] for i, n in enumerate(site))
        for at in (site, behind):
          parts.append(u[(mu, slice(None), slice(None), *at)].astype("<c16").tobytes())
  return b"".join(parts)


def gauge_function(nc: int, lattice: tuple[int, ...], seed: int = 1, dtype=jnp.complex128):
  """Haar-random site matrices [Nc, Nc, *L]."""
  shape = (nc, nc, int(np.prod(lattice)))
  return _haar(jax.random.key(seed), shape, dtype).reshape(nc, nc, *lattice)


def unit_links(nc: int, lattice: tuple[int, ...]) -> np.ndarray:
  nd = len(lattice)
  eye = np.eye(nc, dtype=complex).reshape((1, nc, nc) + (1,) * nd)
  return np.ascontiguousarray(np.broadcast_to(eye, (nd, nc, nc, *lattice)))


def time_first(values: list, nd: int) -> tuple:
  """Extents or phases in the fixtures' order (x, y, z, t or x, t) in ours."""
  return (values[-1], *values[:-1]) if nd == 4 else tuple(values[::-1])


def fixtures() -> list[dict]:
  """Entries of dirac_fixtures.json, made by an independent dense NumPy implementation."""
  return json.loads((DATA / "numpy" / "dirac_fixtures.json").read_text())


def fixture_links(entry: dict) -> np.ndarray:
  lattice = time_first(entry["dims"], len(entry["dims"]))
  if "file" not in entry:
    return unit_links(entry["nc"], lattice)
  path = DATA / "numpy" / entry["file"]
  if path.suffix == ".npz":
    # The file has [mu = x,t][x][t][a][b].
    u = np.load(path)["U"].transpose(0, 3, 4, 1, 2).swapaxes(3, 4)[::-1]
    return np.ascontiguousarray(u).astype(complex)
  return nersc.read(path)[0]


def tmlqcd(number: str) -> np.ndarray:
  """One of the two N_f = 2 configurations by tmLQCD."""
  return ildg.read(DATA / "tmlqcd" / f"nf2_b1.0_k0.1_apbc.{number}.lime")[0]
