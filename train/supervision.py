"""What a supervisor and the processes it starts say to each other. Standard library only."""

# Exit codes, beside 0 (done), 1 (failed) and 2 (bad input).
EXIT_RETRY = 42  # a hang, a lost peer, a device that computes wrongly: the same command goes on
EXIT_PREEMPTED = 143  # told to stop, and saved

# One request to stop may come as two signals: `timeout` signals its child, then its whole group.
REPEAT_SECONDS = 0.5

# Environment variables that `isoflop launch` sets.
COORDINATOR = "ISOFLOP_COORDINATOR"  # HOST:PORT
PROCESSES = "ISOFLOP_PROCESSES"
PROCESS = "ISOFLOP_PROCESS"  # counted from 0
RESTARTED = "ISOFLOP_RESTARTED"  # why the last start ended; absent at the first
