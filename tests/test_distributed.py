import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd import distributed, hosts
from flowqcd.training import objectives


def test_there_are_four_devices():
  assert jax.device_count() == 4


@pytest.mark.parametrize("count", [1, 7, 8, 13])
@pytest.mark.parametrize("chunk", [1, 3])
def test_parallel_map_is_a_map(count, chunk):
  x = np.arange(count, dtype=float)
  found = distributed.parallel_map(lambda a, x: {"y": a * x**2, "z": jnp.stack([x, -x])}, chunk, 1)(3.0, x)
  np.testing.assert_array_equal(found["y"], 3 * x**2)
  np.testing.assert_array_equal(found["z"], np.stack([x, -x], axis=1))


def test_keys_belong_to_items_and_not_to_batches():
  key = jax.random.key(0)
  whole = distributed.item_keys(key, 3, 0, 12)
  np.testing.assert_array_equal(whole[5:9], distributed.item_keys(key, 3, 5, 4))
  assert len(np.unique(np.concatenate([whole, distributed.item_keys(key, 4, 0, 12)]), axis=0)) == 24


def _gradient(params, key):
  x = jax.random.normal(key, (3,))
  return {"a": params["a"] * x, "b": jnp.sum(x)}, x[0]


@pytest.mark.parametrize("chunk", [1, 2, 3, 8])  # 3 does not divide the four items of a device.
def test_four_devices_give_the_gradient_of_one(chunk):
  params = {"a": jnp.arange(3.0), "b": jnp.ones(())}
  keys = distributed.item_keys(jax.random.key(1), 0, 0, 16)
  mean, outputs = distributed.data_parallel(objectives.of_samples(_gradient), chunk)(params, keys)
  one = jax.vmap(_gradient, (None, 0))(params, keys)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b.mean(axis=0), rtol=1e-14), mean, one[0])
  # Two programs may round the same normal numbers differently.
  np.testing.assert_allclose(outputs, one[1], rtol=1e-14)


def test_uneven_batches_are_named():
  with pytest.raises(ValueError, match="batch = 6 must be a multiple of the number of devices, 4"):
    distributed.check_divisible(6, "batch")


@pytest.mark.parametrize("tasks, visible, on_node, wanted", [
  ("1(x4)", "0,1,2,3", "4", [0, 1, 2, 3]),  # One task a node.
  ("1(x4)", None, "4", [0, 1, 2, 3]),
  ("4(x2)", "0,1,2,3", "4", None),  # One task a GPU, all of which each of them sees.
  ("4(x2)", "2", "4", [0]),  # --gpus-per-task=1: each sees its own.
  ("4(x2),1", "0,1", "2", None),
  ("1(x2),1", "0,1", "2", [0, 1]),
  ("2", None, None, None),  # CPUs.
  ("1", "", None, None),
  ("1", "", "4", None),  # Hidden on purpose.
])  # fmt: skip
def test_gpus_of_a_slurm_task(tasks, visible, on_node, wanted):
  given = {"SLURM_STEP_TASKS_PER_NODE": tasks, "CUDA_VISIBLE_DEVICES": visible, "SLURM_GPUS_ON_NODE": on_node}
  environment = {name: value for name, value in given.items() if value is not None}
  assert hosts.slurm_devices({"SLURM_JOB_ID": "7"} | environment) == wanted
  assert hosts.slurm_devices(environment) is None


def test_processes_with_other_numbers_of_devices_are_named():
  of = lambda *processes: [types.SimpleNamespace(process_index=i) for i in processes]
  hosts.check_even(of(0, 0, 1, 1))
  with pytest.raises(ValueError, match="the same number of devices: process 0 has 2, process 1 has 1"):
    hosts.check_even(of(0, 1, 0))
