import os
import signal
import sys

# Of jobs.errors.InterruptedJobError, which is not imported yet.
INTERRUPTED = 75


def _stop(number: int, frame: object) -> None:
    """End before the job has begun: what is imported has nothing to save."""
    name = signal.Signals(number).name
    os.write(2, f"stopped by {name} before the job began: start it again\n".encode())
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    for stopping in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stopping, _stop)
    # Imported once a signal is awaited, since that takes a while.
    from jobs.cli import main

    sys.exit(main())
