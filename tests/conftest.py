"""Four CPU devices and double precision for every test."""

import os

os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4").strip()

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")
