"""The parts of the lung DAGs: tasks, their operators and the contract with the jobs."""
