# syntax=docker/dockerfile:1
# docker build -t claviger .
# docker run --read-only --tmpfs /run/claviger --cap-drop ALL -p 9080:9080 -p 9443:9443 \
#     -v ./conf:/etc/claviger:ro claviger

FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake perl make gcc pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin claviger \
    && cp target/release/claviger /claviger

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin claviger \
    && install -d -o claviger -g claviger /run/claviger
COPY --from=build /claviger /usr/local/bin/claviger
COPY deploy/config.yaml conf/apisix.yaml /etc/claviger/
USER 10001:10001
# The only folder it writes to: mount a tmpfs here and the root file system can be read-only.
WORKDIR /run/claviger
EXPOSE 9080 9443 9091 7085
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["curl", "-fsS", "-o", "/dev/null", "--noproxy", "*", "http://127.0.0.1:7085/status"]
ENTRYPOINT ["claviger"]
CMD ["run", "--config", "/etc/claviger/config.yaml", "--resources", "/etc/claviger/apisix.yaml"]
