# One image for everything: `worker SERVICE`, `api SERVICE`, `topics` and the other commands.
FROM python:3.11-slim-bookworm AS dependencies
COPY requirements-runtime.lock /
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r /requirements-runtime.lock

FROM python:3.11-slim-bookworm
# A user without a name elsewhere, a shell or a home: nothing in the container needs to write but the data directory and,
# once, secrets that were not given.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin refstream \
 && install -d -o refstream /var/lib/refstream /run/secrets
COPY --from=dependencies /venv /venv
COPY schemas /app/schemas
COPY services /app/services
RUN /venv/bin/python -m compileall -q /app
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    REFSTREAM_HOST=0.0.0.0 REFSTREAM_DATA_DIR=/var/lib/refstream
WORKDIR /var/lib/refstream
USER refstream
EXPOSE 8080
# SIGTERM reaches Python itself: a worker hands its partitions over before it ends.
ENTRYPOINT ["python", "-m", "services.cli.main"]
CMD ["--help"]
