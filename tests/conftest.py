"""Eight fake CPU devices and strict rank promotion for every test, set before anything starts jax's backend."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
