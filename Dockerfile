# Builds the one binary, then keeps nothing but it.
FROM rust:1.95-slim-bookworm AS build
# SQLite is compiled in.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY templates templates
# The door hands it out with its API.
COPY docs/results.md docs/results.md
COPY benches benches
COPY tests tests
RUN cargo build --profile dist --locked --features full --bin watershed

FROM debian:bookworm-slim
# The roots that upstreams over TLS, Redis and collectors are checked with.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --home-dir /var/lib/watershed --create-home watershed
COPY --from=build /build/target/dist/watershed /usr/local/bin/watershed
COPY config/routes.docker.yaml /etc/watershed/routes.yaml
USER watershed
VOLUME /var/lib/watershed
EXPOSE 8080
ENTRYPOINT ["watershed"]
CMD ["run", "-c", "/etc/watershed/routes.yaml"]
