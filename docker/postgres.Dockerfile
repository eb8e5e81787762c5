# PostgreSQL for `make up` where no registry has the official image, whose user id, folders and variables
# it keeps. docker/base-image.sh builds it, with --network none, from build/postgres-debs.
ARG BASE_IMAGE=lung-base:bookworm

FROM ${BASE_IMAGE}
COPY build/postgres-debs /debs
# Nothing starts while it installs: the cluster is made by postgres-start, in a volume.
RUN printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d \
 && mkdir -p /etc/postgresql-common \
 && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
 && groupadd --gid 999 postgres \
 && useradd --uid 999 --gid postgres --home-dir /var/lib/postgresql --shell /bin/bash postgres \
 && export DEBIAN_FRONTEND=noninteractive \
 && dpkg --force-confold --unpack /debs/*.deb && dpkg --force-confold --configure --pending \
 && rm -rf /debs /usr/sbin/policy-rc.d /var/lib/postgresql /run/postgresql /var/log/* \
      /usr/share/man/* /usr/share/locale/* \
 && find /usr/share/doc -type f -not -name copyright -delete \
 && install -d -o 999 -g 999 /var/lib/postgresql /var/lib/postgresql/data /run/postgresql
COPY docker/postgres-start.sh /usr/local/bin/postgres-start
RUN chmod 755 /usr/local/bin/postgres-start
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin
USER 999:999
ENTRYPOINT ["postgres-start"]
