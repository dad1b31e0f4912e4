# medfewshot in a container. Building needs a network, running does not. See "In a container" in docs/install.md.
#
#   docker build -t medfewshot .                                # computes on the CPU
#   docker build -t medfewshot --build-arg DEVICE=cu130 .       # NVIDIA GPU (CUDA 13.0); run it with --gpus all

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG DEVICE=cpu
ARG EXTRAS=annotate,dicom,monai,video
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /opt/medfewshot && \
    /opt/medfewshot/bin/python -m pip install --no-cache-dir -c constraints.txt \
        --extra-index-url "https://download.pytorch.org/whl/${DEVICE}" \
        "$(sed -n 's/^torch==.*/&/p' constraints.txt)+${DEVICE}"
COPY . .
RUN /opt/medfewshot/bin/python -m pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim-bookworm
COPY --from=build /opt/medfewshot /opt/medfewshot
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin medfewshot
# Any user may run it (docker run --user), so the home is the one folder that everybody can write to.
ENV PATH=/opt/medfewshot/bin:${PATH} HOME=/tmp MPLBACKEND=Agg PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
HEALTHCHECK --interval=1m --timeout=30s CMD ["medfewshot", "--version"]
ENTRYPOINT ["medfewshot"]
CMD ["--help"]
