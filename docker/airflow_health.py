"""Ends well if a component of Airflow is alive by what the API server knows of it.

usage: python airflow_health.py metadatabase|scheduler|dag_processor|triggerer
"""

import json
import sys
from urllib.request import ProxyHandler, build_opener

URL = "http://api-server:8080/api/v2/monitor/health"
SECONDS = 5

if __name__ == "__main__":
    # A hospital's proxy knows nothing of the containers' network.
    with build_opener(ProxyHandler({})).open(URL, timeout=SECONDS) as answer:
        status = json.load(answer)[sys.argv[1]]["status"]
    sys.exit(None if status == "healthy" else f"{sys.argv[1]} is {status}")
