"""The scheduler: goroutines, the threads that run them, and sysmon that watches."""
