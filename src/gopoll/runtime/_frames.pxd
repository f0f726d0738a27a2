"""The Python stacks of all threads. See _frames.pyx: nothing of it is for other modules' C."""
