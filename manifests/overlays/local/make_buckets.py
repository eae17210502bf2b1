"""Makes the buckets that are not there yet; the store and its keys come from the environment."""

import sys

import boto3

s3 = boto3.client("s3")
present = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
for name in sys.argv[1:]:
    if name not in present:
        s3.create_bucket(Bucket=name)
