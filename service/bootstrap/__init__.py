"""Makes what runs from the settings. Only this package chooses implementations and connects them.

What is made here owns threads, files or connections from its first use on. Make it in the process that uses it.
"""
