"""Where work runs: Ray, in one module, and what machine, cluster and GPUs allow."""
