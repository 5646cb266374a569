# The page-store service with FoundationDB's client library, on top of the image of docker/Dockerfile:
#   docker build -f docker/Dockerfile -t pagestore .
#   docker build -f docker/foundationdb.Dockerfile -t pagestore-foundationdb .
ARG FDB_VERSION=7.3.63
FROM foundationdb/foundationdb:${FDB_VERSION} AS fdb

FROM pagestore
ARG FDB_VERSION
USER root
COPY --from=fdb /usr/lib/libfdb_c.so /usr/lib/libfdb_c.so
RUN /opt/mvvfs/bin/pip install --no-cache-dir "foundationdb==${FDB_VERSION}"
USER pagestore
ENV PAGESTORE_STORE=fdb:
