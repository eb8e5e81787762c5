"""The network and its training: tensors in, tensors out; knows neither S3 nor the jobs."""
