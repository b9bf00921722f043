# syntax=docker/dockerfile:1
# An image with the program, the libraries that it needs, and the certificates of public authorities:
# no shell, no package manager. docs/operate/container.md tells how it is run.

FROM rust:1.95-slim-bookworm AS compile
# SQLite and ring are compiled. The versions are those of the base image's release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The dependencies are a layer of their own: it is built again only when they change.
COPY Cargo.toml Cargo.lock ./
COPY core/Cargo.toml core/
RUN mkdir -p src benches core/src \
    && touch src/lib.rs core/src/lib.rs benches/assign.rs benches/store.rs benches/proxy.rs \
    && echo 'fn main() {}' >src/main.rs \
    && cargo build --profile dist --locked --features full --bin watershed
COPY core core
COPY src src
COPY templates templates
# The API document includes it.
COPY docs/results.md docs/results.md
# Newer than the files of the layer before.
RUN touch core/src/lib.rs src/lib.rs src/main.rs \
    && cargo build --profile dist --locked --features full --bin watershed \
    && strip target/dist/watershed

FROM compile AS files
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY config/routes.docker.yaml /files/etc/watershed/routes.yaml
# The program, the libraries that it names, the certificates, and an order in which to resolve names.
RUN install -D -t /files/usr/bin /build/target/dist/watershed \
    && ldd /build/target/dist/watershed | grep -o '/[^ ]*' | xargs -I '{}' cp --parents -L '{}' /files \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /files/etc/ssl/certs/ca-certificates.crt \
    && echo 'hosts: files dns' >/files/etc/nsswitch.conf \
    && install -d -m 1777 /files/tmp \
    && install -d -o 10001 -g 10001 -m 700 /files/var/lib/watershed

FROM scratch
COPY --from=files /files /
USER 10001:10001
VOLUME /var/lib/watershed
EXPOSE 8080 9900 9901
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s \
    CMD ["/usr/bin/watershed", "healthcheck", "-c", "/etc/watershed/routes.yaml"]
ENTRYPOINT ["/usr/bin/watershed"]
CMD ["run", "-c", "/etc/watershed/routes.yaml"]
