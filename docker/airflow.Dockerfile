# The image of Airflow's components, with the DAGs and the plugin. `docker/image.sh airflow` builds it,
# with --network none from build/wheelhouse-airflow (docker/wheelhouse.sh), by BuildKit or the classic
# builder.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
COPY build/wheelhouse-airflow /wheels
COPY docker/requirements/airflow.lock docker/requirements/airflow-postgres.lock /requirements/
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --quiet --require-hashes --requirement /requirements/airflow.lock \
      --requirement /requirements/airflow-postgres.lock \
 && /opt/venv/bin/pip check \
 && /opt/venv/bin/pip uninstall --quiet --yes pip \
 && find /opt/venv -type d -name tests -prune -exec rm -rf {} +

FROM ${BASE_IMAGE} AS airflow
COPY --from=builder /opt/venv /opt/venv
COPY LICENSE docker/airflow_health.py /opt/lung/
COPY dags /opt/lung/dags
# Readable by every user id, whatever the clone's umask was. A volume takes the mode of the folder that
# it covers. The empty airflow.cfg keeps Airflow from writing one with generated secrets.
RUN chmod -R a+rX /opt/lung && python3 -m compileall -q /opt/lung \
 && mkdir -p /opt/airflow/logs && chmod 1777 /opt/airflow/logs && touch /opt/airflow/airflow.cfg
# HOME and LOGNAME, as the container's user id need not be in /etc/passwd.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/lung/dags \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LOGNAME=airflow \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/lung/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/lung/dags/lung \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
WORKDIR /opt/airflow
USER 10001:10001
ENTRYPOINT []
CMD ["airflow", "version"]
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
ARG CONTENT=unknown
LABEL org.opencontainers.image.title="lung-airflow" \
      org.opencontainers.image.description="Airflow with the lung segmentation DAGs" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      lung.content="${CONTENT}"
