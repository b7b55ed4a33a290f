# Stands in for a base image that cannot be pulled: see ../engine.py.
FROM refstream-stand-in:bookworm
COPY kafka/*.jar /opt/kafka/libs/
COPY kafka/run.py /opt/kafka/run.py
RUN useradd --uid 1000 appuser && install -d -o appuser /var/lib/kafka/data
USER appuser
ENTRYPOINT ["python3", "/opt/kafka/run.py"]
