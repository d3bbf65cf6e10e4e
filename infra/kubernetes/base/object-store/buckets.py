"""Create the buckets that do not exist yet; the credentials are those of the object store's administrator."""

import boto3
from botocore.config import Config

client = boto3.client("s3", config=Config(retries={"mode": "standard", "total_max_attempts": 10}))
existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
for name in ("assay", "mlflow"):
    if name not in existing:
        client.create_bucket(Bucket=name)
    print(name, "was there" if name in existing else "created")
