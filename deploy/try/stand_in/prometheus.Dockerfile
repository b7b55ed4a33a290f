# Stands in for a base image that cannot be pulled: see ../engine.py.
FROM refstream-stand-in:bookworm
RUN install -d -o nobody /prometheus
USER nobody
WORKDIR /prometheus
ENTRYPOINT ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
