"""Object stores of tests: python objects.py COMMAND …

serve PORT           serves S3, with an empty bucket `shop`; prints `ready`
bucket ADDRESS       makes the container `shop` of Azurite
copy STORE ADDRESS TO   copies all objects of `shop` (s3 or azure) to a directory
"""

import pathlib
import sys
import time

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def s3(address):
    import boto3

    return boto3.client(
        "s3", endpoint_url=address, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
    )


def azure(address):
    from azure.storage.blob import BlobServiceClient

    return BlobServiceClient(f"{address}/devstoreaccount1", credential=KEY).get_container_client("shop")


def objects(store, address):
    if store == "s3":
        client = s3(address)
        for page in client.get_paginator("list_objects_v2").paginate(Bucket="shop"):
            for found in page.get("Contents", []):
                yield found["Key"], client.get_object(Bucket="shop", Key=found["Key"])["Body"].read()
    else:
        container = azure(address)
        for found in container.list_blobs():
            yield found.name, container.download_blob(found.name).readall()


match sys.argv[1:]:
    case ["serve", port]:
        from moto.server import ThreadedMotoServer

        ThreadedMotoServer(ip_address="127.0.0.1", port=int(port), verbose=False).start()
        s3(f"http://127.0.0.1:{port}").create_bucket(Bucket="shop")
        print("ready", flush=True)
        while True:
            time.sleep(1000)
    case ["bucket", address]:
        azure(address).create_container()
    case ["copy", store, address, to]:
        for name, content in objects(store, address):
            path = pathlib.Path(to) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
