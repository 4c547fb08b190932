"""`mirror doctor` and `mirror status`.

doctor.py          all checks, in order
bucket_checks.py   a bucket, by bucket_probes.py and endpoint.py (requests by boto3)
folder_checks.py   a mirror in a folder
machine_checks.py  the cache's and the state's folders
public_url.py      what `bucket.public_url` serves
status.py          what is in the mirror, what is left to sync, what it costs
"""
