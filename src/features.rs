//! The Cargo features that a build may leave out, and what is reported where one is missing.

/// A Cargo feature of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Counts in Redis or Valkey.
    Redis,
    /// Counts in PostgreSQL.
    Postgres,
    /// Spans to a collector that speaks OTLP.
    Otlp,
    /// Endpoints by DNS records.
    Dns,
    /// Exports as Apache Parquet.
    Parquet,
    /// Every exposure and event as Apache Parquet.
    Archive,
    /// Certificates by ACME.
    Acme,
    /// The Model Context Protocol.
    Mcp,
    /// Routes and weights from a Kubernetes cluster.
    Kubernetes,
}

impl Feature {
    /// Its name in Cargo.toml.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Redis => "redis",
            Feature::Postgres => "postgres",
            Feature::Otlp => "otlp",
            Feature::Dns => "dns",
            Feature::Parquet => "parquet",
            Feature::Archive => "archive",
            Feature::Acme => "acme",
            Feature::Mcp => "mcp",
            Feature::Kubernetes => "kubernetes",
        }
    }

    /// Whether this build has it.
    pub fn is_built(self) -> bool {
        match self {
            Feature::Redis => cfg!(feature = "redis"),
            Feature::Postgres => cfg!(feature = "postgres"),
            Feature::Otlp => cfg!(feature = "otlp"),
            Feature::Dns => cfg!(feature = "dns"),
            Feature::Parquet => cfg!(feature = "parquet"),
            Feature::Archive => cfg!(feature = "archive"),
            Feature::Acme => cfg!(feature = "acme"),
            Feature::Mcp => cfg!(feature = "mcp"),
            Feature::Kubernetes => cfg!(feature = "kubernetes"),
        }
    }
}

/// Something needs a feature that this build does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this program was built without its feature `{}`", .0.name())]
pub struct MissingFeature(pub Feature);

impl MissingFeature {
    /// What to do about it.
    pub fn hint(self) -> String {
        let name = self.0.name();
        format!("build it with `--features {name}` (released programs have every feature)")
    }
}
