"""A health check: exit code 0 where Airflow's API server reports the component as healthy.

usage: python airflow_health.py metadatabase|scheduler|dag_processor|triggerer
"""

import json
import sys
from urllib.request import ProxyHandler, build_opener

URL = "http://api-server:8080/api/v2/monitor/health"
TIMEOUT_SECONDS = 5

if __name__ == "__main__":
    # No proxy: it does not reach the containers' network.
    with build_opener(ProxyHandler({})).open(URL, timeout=TIMEOUT_SECONDS) as answer:
        status = json.load(answer)[sys.argv[1]]["status"]
    sys.exit(None if status == "healthy" else f"{sys.argv[1]} is {status}")
