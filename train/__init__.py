"""How the model learns: mesh, state, step, loop, feed, checkpoints, metrics."""
