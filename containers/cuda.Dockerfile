# darts for NVIDIA GPUs whose driver knows CUDA 13; CUDA's libraries come with PyTorch and CuPy. From the root of the
# repository:
#     docker build --file containers/cuda.Dockerfile --tag darts:cuda .
# docs/guides/containers.md tells how to use it.

FROM python:3.11-slim-bookworm AS build
ARG UV_VERSION=0.13.8
# The history, which tells the version, is not sent along: say with `--build-arg VERSION=…` what is built.
ARG VERSION=0.1.0
ENV UV_DYNAMIC_VERSIONING_BYPASS=$VERSION UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir "uv==$UV_VERSION"
WORKDIR /source
COPY . .
# Wheels of the packages, and the versions of uv.lock for all that they need.
RUN uv build --quiet --all-packages --wheel --out-dir /wheels \
    && uv export --quiet --package darts-permafrost --extra cuda --extra ray --extra training \
        --no-dev --no-hashes --no-emit-workspace --output-file /versions.txt \
    && uv venv /opt/darts \
    && uv pip install --python /opt/darts/bin/python --find-links /wheels --constraints /versions.txt \
        "darts-permafrost[cuda,ray,training]" \
    && /opt/darts/bin/python -m compileall -q /opt/darts/lib

FROM python:3.11-slim-bookworm
# GDAL in the wheel of rasterio is the only part that needs a library which it does not bring.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home darts \
    && install --directory --owner darts /data
COPY --from=build /opt/darts /opt/darts
# GDAL_DATA and PROJ_DATA stay unset: each wheel has its own. Compiled kernels go where any user may write.
ENV PATH=/opt/darts/bin:$PATH \
    DARTS_DATA_DIR=/data \
    PROJ_NETWORK=OFF \
    NUMBA_CACHE_DIR=/tmp/darts-kernels \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /data
VOLUME ["/data"]
ENTRYPOINT ["darts"]
CMD ["--help"]
