# A server of one classifier: docs/exporting.md, Containers.
#
#   docker build -t finevote .                           serves an exported .onnx file, without PyTorch
#   docker build -t finevote:torch --target torch \      serves a bundle, with PyTorch for the CPU
#     --build-arg TORCH_INDEX=...                        the index of PyTorch's wheels for the CPU

ARG PYTHON=3.13-slim

FROM python:${PYTHON} AS source
ENV PATH=/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /source
RUN python -m venv /venv
COPY container ./container
COPY constraints.txt ./

FROM source AS onnx-packages
RUN pip install --constraint constraints.txt --requirement container/serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-deps .

FROM source AS torch-packages
# Without an index of its own, PyTorch would bring gigabytes of CUDA along.
ARG TORCH_INDEX=
RUN if [ -z "$TORCH_INDEX" ]; then echo "give --build-arg TORCH_INDEX=..., see docs/exporting.md" >&2; exit 1; fi
RUN PIP_INDEX_URL="$TORCH_INDEX" pip install --constraint constraints.txt torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --constraint constraints.txt ".[serve]"

FROM python:${PYTHON} AS server
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    XDG_CACHE_HOME=/tmp/cache \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 finevote && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin finevote
WORKDIR /model
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4).close()"]
ENTRYPOINT ["finevote", "serve"]

FROM server AS torch
COPY --from=torch-packages /venv /venv
CMD ["/model", "--host", "0.0.0.0", "--port", "8000"]

FROM server AS onnx
COPY --from=onnx-packages /venv /venv
CMD ["/model/model.onnx", "--host", "0.0.0.0", "--port", "8000"]
