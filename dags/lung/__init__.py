"""What the lung DAGs are made of: stages, their operators and the contract with the jobs."""
