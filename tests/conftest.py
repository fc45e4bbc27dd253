"""Eight fake CPU devices for every test, made before anything starts jax's backend."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
