"""The local services: S3, PostgreSQL and an MLflow server, as ordinary processes on loopback."""
