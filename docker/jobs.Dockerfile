# The image of the jobs. `docker/image.sh` builds it, with --network none from build/wheelhouse
# (docker/wheelhouse.sh), by BuildKit or the classic builder. Targets:
#   jobs    the jobs; the default, as it is the last
#   local   the same with the embedded S3 server, for a machine without S3
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
COPY build/wheelhouse /wheels
COPY docker/requirements/jobs.lock docker/requirements/local.lock docker/requirements/torch.in /requirements/
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --quiet --require-hashes --requirement /requirements/jobs.lock \
 && /opt/venv/bin/pip install --quiet --requirement /requirements/torch.in \
 && /opt/venv/bin/pip check \
 && /opt/venv/bin/pip install --quiet --require-hashes --prefix /opt/local \
      --requirement /requirements/local.lock \
 && /opt/venv/bin/pip uninstall --quiet --yes pip \
 && cd /opt/venv/lib/python3.*/site-packages && rm -rf torch/test torch/bin/test_* torch/bin/*Test \
 && find scipy sklearn -type d -name tests -prune -exec rm -rf {} +

FROM ${BASE_IMAGE} AS runtime
COPY --from=builder /opt/venv /opt/venv
COPY LICENSE /app/
COPY jobs /app/jobs
# Readable by every user id, whatever the clone's umask was.
RUN chmod -R a+rX /app && python3 -m compileall -q /app/jobs
# HOME and LOGNAME, as the container's user id need not be in /etc/passwd; caches go to /tmp, since
# the root file system is read-only.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LOGNAME=lung \
    KAGGLEHUB_CACHE=/tmp/kagglehub \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor
WORKDIR /app
USER 10001:10001
ENTRYPOINT []
CMD ["python", "-m", "jobs", "--help"]
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
ARG CONTENT=unknown
ENV LUNG_REVISION=${REVISION}
LABEL org.opencontainers.image.title="lung-jobs" \
      org.opencontainers.image.description="Lung segmentation jobs: S3 URIs in, S3 URIs out" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      lung.content="${CONTENT}"

FROM runtime AS local
COPY --from=builder /opt/local /opt/venv
# The embedded S3 server makes a certificate with it at each start.
RUN openssl version

FROM runtime AS jobs
