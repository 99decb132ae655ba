"""Where trials run: the executor protocol, the worker, and the executors."""
