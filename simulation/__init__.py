"""A year of patching on a jumping clock: the real scheduler, planner, engine and simulator, and a checker of its own."""
