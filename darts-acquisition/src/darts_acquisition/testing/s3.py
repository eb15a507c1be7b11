"""An S3 service on 127.0.0.1: moto's server."""

import contextlib
from collections.abc import Iterator
from typing import Any

import boto3
from botocore.config import Config

from darts_acquisition.testing.processes import program, running

REGION = "us-east-1"


class S3Server:
    """A running S3 service."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        """Address, `http://127.0.0.1:PORT`."""
        self.keys = ("testing-access-key", "testing-secret-key")
        """Access key and secret key; the server takes any, but refuses requests without unless an object is public."""
        self._client: Any = None
        self._buckets: set[str] = set()

    @property
    def client(self) -> Any:
        """A boto3 client of the service."""
        if self._client is None:
            self._client = boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                region_name=REGION,
                aws_access_key_id=self.keys[0],
                aws_secret_access_key=self.keys[1],
                config=Config(s3={"addressing_style": "path"}, proxies={}),
            )
        return self._client

    def put(self, bucket: str, key: str, data: bytes, public: bool = False) -> None:
        """Store an object, in a bucket that is made if need be; anybody may read it if `public`."""
        if bucket not in self._buckets:
            self.client.create_bucket(Bucket=bucket)
            self._buckets.add(bucket)
        self.client.put_object(Bucket=bucket, Key=key, Body=data, **({"ACL": "public-read"} if public else {}))

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Return environment variables with which GDAL and boto3 talk to this service.

        Args:
            endpoint: address of a proxy in front of it; None: the service itself.
        """
        address = endpoint or self.endpoint
        return {
            "AWS_ACCESS_KEY_ID": self.keys[0],
            "AWS_SECRET_ACCESS_KEY": self.keys[1],
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": address,
            "AWS_S3_ENDPOINT": address.partition("://")[2],
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_EC2_METADATA_DISABLED": "true",
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        }


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run an empty S3 service until the block ends.

    Raises:
        MissingDataError: moto's server is not installed.
        RemoteError: it did not start.
    """
    moto = str(program("moto_server", "moto[server]"))
    with running(lambda port: [moto, "-H", "127.0.0.1", "-p", str(port)], "/moto-api/data.json") as port:
        yield S3Server(f"http://127.0.0.1:{port}")
