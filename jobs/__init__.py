"""The jobs of the lung segmentation pipeline: `python -m jobs <job> --help`."""
