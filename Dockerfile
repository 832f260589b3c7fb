# The server in a container, for CPUs; with --build-arg VARIANT=cuda for NVIDIA GPUs. docs/serving.md says how to run it.
ARG PYTHON=3.11
ARG VARIANT=cpu

FROM python:${PYTHON}-slim AS wheel
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY constraints.txt ./
RUN python -m pip install --no-cache-dir --constraint constraints.txt setuptools wheel
COPY pyproject.toml README.md LICENSE ./
COPY ernie_rt ernie_rt
COPY backends backends
COPY plugins plugins
RUN python -m pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels .

FROM wheel AS cpu-extras
ARG EXTRAS=onnx,tokenizers,serve

FROM wheel AS cuda-extras
ARG EXTRAS=cuda,tokenizers,serve

FROM ${VARIANT}-extras AS packages
# pip reads it: another index beside its own. Whoever has the image can read it too, so it holds no password.
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv --without-pip /opt/ernie-rt
RUN python -m pip --python /opt/ernie-rt/bin/python install --no-cache-dir --constraint constraints.txt \
    "$(echo /wheels/*.whl)[${EXTRAS}]"
# A wheel is built without the operators in C++ where they cannot be compiled.
RUN /opt/ernie-rt/bin/python -c "import ernie_rt_onnx.library as it; raise SystemExit(it.library_path() is None)"

FROM python:${PYTHON}-slim AS cpu-base

FROM python:${PYTHON}-slim AS cuda-base
# Triton compiles what starts its kernels.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM ${VARIANT}-base
RUN groupadd --gid 10001 ernie \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /cache --shell /usr/sbin/nologin ernie \
    && install --directory --owner 10001 --group 10001 --mode 0700 /cache \
    && install --directory /models
COPY --from=packages /opt/ernie-rt /opt/ernie-rt
ENV PATH=/opt/ernie-rt/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/cache \
    TMPDIR=/tmp \
    XDG_CACHE_HOME=/cache \
    XDG_STATE_HOME=/cache/state \
    HF_HOME=/cache/huggingface \
    TRITON_CACHE_DIR=/cache/triton
USER 10001:10001
WORKDIR /models
VOLUME ["/models", "/cache"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 CMD ["python", "-c", "import http.client as http; it = http.HTTPConnection('127.0.0.1', 8000, timeout=4); it.request('GET', '/ready'); raise SystemExit(it.getresponse().status != 200)"]
ENTRYPOINT ["ernie-rt"]
CMD ["--help"]
