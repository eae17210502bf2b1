"""The DAG, its resources, its presets and the command that compiles and runs it."""
