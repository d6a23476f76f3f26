"""Settings -> the things that run: the only place that chooses implementations and wires them.

Everything made here owns threads, files or connections from its first use on, so make it in the process that uses it.
"""
