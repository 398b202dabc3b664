# The wheel is built and installed apart from the image that runs it: no compiler, no builder, no
# source tree is left in there.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY requirements-build.lock requirements-server.lock ./
RUN pip install --require-hashes --requirement requirements-build.lock \
    && python -m venv --without-pip /opt/wallet-sync \
    && pip --python /opt/wallet-sync install --require-hashes --requirement requirements-server.lock
COPY . .
RUN hatchling build --target wheel --directory /wheels \
    && pip --python /opt/wallet-sync install --no-deps /wheels/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --no-create-home wallet-sync \
    && install --directory --owner=wallet-sync --group=wallet-sync --mode=0700 /data
COPY --from=build /opt/wallet-sync /opt/wallet-sync
ENV PATH=/opt/wallet-sync/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    WSSERVER_DATABASE_URL=sqlite:////data/wallet-sync.db \
    WSSERVER_HOST=0.0.0.0
USER 10001
VOLUME /data
EXPOSE 8090
STOPSIGNAL SIGTERM
# The admin port listens on loopback, inside the container: nothing but this check reaches it.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8091/healthz', timeout=4)"]
ENTRYPOINT ["wsserver"]
CMD ["serve"]
